"""Run the suite and write the record: python -m benchmarks.prediction --networks resnet18 demo --assignments 10 --size 64.

Rows are kept in out/prediction/rows.jsonl and measurements of kernels in out/networks/kernels.db, so an interrupted run goes on
where it stopped, and more assignments are added to those that are there. Every network runs in a process of its own.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.networks import DATABASE, DEFAULT, DEMO, Named, unknown
from benchmarks.rows import Rows, in_child, write_record
from billhook.progress import shown

from .measure import Task, measure
from .summary import summarise

HOME = Path("out") / "prediction"
ROWS = Rows(HOME / "rows.jsonl", ("network", "threads", "seed", "role", "index"))


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prediction", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=[*DEFAULT, DEMO], help="demo, or names in torchvision.models")
    parser.add_argument("--assignments", type=int, default=50, help="that judge the prediction, for each network")
    parser.add_argument("--calibrate", type=int, default=3, help="further assignments that calibrate it, besides the dense network")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image's side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", type=Path, default=DATABASE, help="measurements of kernels to reuse and extend")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if wrong := unknown(options.networks):
        parser.error(f"unknown network {wrong[0]!r}; name {DEMO} or a network of torchvision.models")
    if options.in_process:
        with shown() as progress:
            for name in options.networks:
                network = Named(name, options.size)
                task = Task(network, options.threads, options.seed, options.calibrate, options.assignments)
                measure(task, options.database, ROWS, progress)
        return 0
    flags = ("assignments", "calibrate", "size", "threads", "seed", "database")
    shared = [word for flag in flags for word in (f"--{flag}", str(getattr(options, flag)))]
    failed = [name for name in options.networks if not in_child("benchmarks.prediction", "--networks", name, *shared)]
    rows = ROWS.read()
    summary = summarise(rows)
    print(write_record("prediction", summary, rows))
    for name, found in summary["networks"].items():
        for predictor, verdict in found["predictors"].items():
            print(f"{name:24} {predictor:22} {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
