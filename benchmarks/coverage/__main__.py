"""Run the suite, or the part of it that is named, and write the record."""

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from .case import Case
from .runner import read, run
from .summary import summarise

HOME = Path(__file__).parents[1] / "results" / "coverage"
ROWS = Path("out") / "coverage" / "rows.jsonl"  # grows while the suite runs; the record is written from it
PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy")


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("sets", nargs="*", default=["structures", "torchvision", "timm", "transformers"])
    parser.add_argument("--only", default="", help="names that contain this text")
    parser.add_argument("--again", choices=["nothing", "failed", "all"], default="nothing", help="what to measure although it has a row")
    parser.add_argument("--seconds", type=int, default=240, help="CPU time of a model")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="address space of a model")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th case, beginning with the i-th")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = ROWS
    part, parts = map(int, options.part.split("/"))
    cases = [c for name in options.sets for c in _cases(name) if options.only in c.name][part::parts]
    run(cases, rows, seconds=options.seconds, memory=int(options.gigabytes * 2**30), again=lambda row: _again(row, options.again))
    _write(rows)
    return 0


def _again(row: dict[str, Any], what: str) -> bool:
    return what == "all" or (what == "failed" and (row["stage"] != "done" or row["wrong"]))


def _cases(name: str) -> list[Case]:
    import importlib

    module = importlib.import_module(f".{name if name == 'structures' else name + '_zoo'}", __package__)
    cases: list[Case] = module.cases()
    return cases


def _write(rows: Path) -> None:
    """The record: environment, summary, rows in order of name."""
    table = [row for _, row in sorted(read(rows).items())]
    environment = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    HOME.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment, "summary": summarise(table), "rows": table}
    (HOME / "record.json").write_text(json.dumps(record, indent=1, allow_nan=True) + "\n")
    print(json.dumps(record["summary"], indent=1), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
