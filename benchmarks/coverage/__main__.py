"""Run the suite, or the part of it that is named, and write the record."""

import argparse
import importlib
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

from billhook.ir.capture import capture

from .case import Case
from .runner import Limits, Stage, read, run
from .summary import summarise

HOME = Path(__file__).parents[1] / "results" / "coverage"
ROWS = Path("out") / "coverage"  # tables that grow while the suite runs; the record is written from them
PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy")


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("sets", nargs="*", default=["structures", "torchvision", "timm", "transformers"])
    parser.add_argument("--only", default="", help="names that contain this text")
    parser.add_argument("--again", choices=["nothing", "failed", "all"], default="nothing", help="what to measure although it has a row")
    parser.add_argument("--compile", action="store_true", help="build the cut networks with TVM, untuned, instead of analysing them")
    parser.add_argument("--seconds", type=int, default=240, help="CPU time of a model")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="address space of a model")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th case, beginning with the i-th")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, options.part.split("/"))
    cases = [c for name in options.sets for c in _cases(name) if options.only in c.name][part::parts]
    table = ROWS / ("compiled.jsonl" if options.compile else "rows.jsonl")
    limits = Limits(options.seconds, int(options.gigabytes * 2**30))
    run(cases, table, _stage(options.compile), limits, lambda row: _again(row, options.again))
    _write()
    return 0


def _stage(compiles: bool) -> Stage:
    """What is done with every case. What torch and TVM import at their first use is imported here, before any child is made."""
    capture(torch.nn.Linear(2, 2), (torch.zeros(2, 2),))
    if compiles:
        importlib.import_module("tvm.relax.frontend.torch")
        from . import compiled

        return Stage(compiled.CompiledRow, compiled.compile_row, compiled.line_of)
    from . import measure

    return Stage(measure.Row, measure.measure, measure.line_of)


def _again(row: dict[str, Any], what: str) -> bool:
    failed = row["stage"] != "done" or row.get("wrong") or row.get("compiled", "yes") != "yes"
    return what == "all" or (what == "failed" and failed)


def _cases(name: str) -> list[Case]:
    module = importlib.import_module(f".{name if name == 'structures' else name + '_zoo'}", __package__)
    cases: list[Case] = module.cases()
    return cases


def _write() -> None:
    """The record: environment, summary, rows in order of name."""
    built = read(ROWS / "compiled.jsonl")
    table = [{**row, **_build_of(built.get(name))} for name, row in sorted(read(ROWS / "rows.jsonl").items())]
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


def _build_of(row: dict[str, Any] | None) -> dict[str, Any]:
    """What a model's row says of its build: "yes", or the reason why not."""
    if row is None:
        return {"compiled": "not tried: time"}
    compiled = f"{row['compiled']}: {row['error']}" if row["error"] and row["compiled"] != "yes" else row["compiled"]
    kept = ("kernels", "templates", "generic", "generic_anchors", "relative_error", "compile_s")
    return {"compiled": compiled, **{f"compiled_{key}" if key == "relative_error" else key: row[key] for key in kept}}


if __name__ == "__main__":
    sys.exit(main())
