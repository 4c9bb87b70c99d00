"""Run the suite, or the part of it that is named, and write the record."""

import argparse
import functools
import importlib
import json
import math
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
ANALYSIS_SECONDS = 240  # CPU time of what comes before the axes, and after them
PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy")


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("sets", nargs="*", default=["structures", "torchvision", "timm", "transformers"])
    parser.add_argument("--only", default="", help="names that contain this text")
    parser.add_argument("--again", choices=["nothing", "failed", "all"], default="nothing", help="what to measure although it has a row")
    parser.add_argument("--compile", action="store_true", help="build the cut networks with TVM, untuned, instead of analysing them")
    parser.add_argument("--every-axis", action="store_true", help="cut every axis alone, smallest analysis first, instead of all at once")
    parser.add_argument("--seconds", type=int, default=240, help="CPU time of a model (of its axes, with --every-axis)")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="address space of a model")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th case, beginning with the i-th")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, options.part.split("/"))
    cases = [c for name in options.sets for c in _cases(name) if options.only in c.name][part::parts]
    if options.every_axis:
        cases.sort(key=functools.partial(_work, read(ROWS / "rows.jsonl")))
    kind = "compiled" if options.compile else "every_axis" if options.every_axis else "rows"
    limits = Limits(options.seconds + (ANALYSIS_SECONDS if options.every_axis else 0), int(options.gigabytes * 2**30))
    run(cases, ROWS / f"{kind}.jsonl", _stage(kind, options.seconds), limits, lambda row: _again(row, options.again))
    _write()
    return 0


def _work(rows: dict[str, dict[str, Any]], case: Case) -> float:
    """How long the axes of a case take, by its nodes and axes; those that are not known come last."""
    row = rows.get(f"{case.set}/{case.name}", {})
    return row.get("nodes", 0) * row.get("prunable", 0) + row.get("parameters", 0) / 1000 or math.inf


def _stage(kind: str, seconds: int) -> Stage:
    """What is done with every case. What torch and TVM import at their first use is imported here, before any child is made."""
    capture(torch.nn.Linear(2, 2), (torch.zeros(2, 2),))
    if kind == "compiled":
        importlib.import_module("tvm.relax.frontend.torch")
        from . import compiled

        return Stage(compiled.CompiledRow, compiled.compile_row, compiled.line_of)
    if kind == "every_axis":
        from . import every_axis

        return Stage(every_axis.AxesRow, functools.partial(every_axis.check_axes, seconds=seconds), every_axis.line_of)
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
    built, alone = read(ROWS / "compiled.jsonl"), read(ROWS / "every_axis.jsonl")
    table = [{**row, **_build_of(built.get(name)), **_axes_of(alone.get(name))} for name, row in sorted(read(ROWS / "rows.jsonl").items())]
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


def _axes_of(row: dict[str, Any] | None) -> dict[str, Any]:
    """What a model's row says of its axes, each cut alone."""
    if row is None:
        return {"every_axis": {"stage": "not tried: time"}}
    kept = ("stage", "error", "prunable", "checked", "vanished", "combinations", "worst_error", "unseen", "beyond", "wrong", "seconds")
    return {"every_axis": {key: row[key] for key in kept if row[key] or key in {"prunable", "checked"}}}


def _build_of(row: dict[str, Any] | None) -> dict[str, Any]:
    """What a model's row says of its build: "yes", or the reason why not."""
    if row is None:
        return {"compiled": "not tried: time"}
    compiled = f"{row['compiled']}: {row['error']}" if row["error"] and row["compiled"] != "yes" else row["compiled"]
    kept = ("kernels", "templates", "generic", "generic_anchors", "relative_error", "compile_s")
    return {"compiled": compiled, **{f"compiled_{key}" if key == "relative_error" else key: row[key] for key in kept}}


if __name__ == "__main__":
    sys.exit(main())
