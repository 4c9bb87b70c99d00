"""Run the suite and write the record: python -m benchmarks.closed_loop --networks resnet18 demo --budgets 0.3 0.5 0.7 --size 64.

Rows are kept in out/closed_loop/rows.jsonl and measurements of kernels in out/networks/kernels.db, so an interrupted run goes on
where it stopped. Every network runs in a process of its own.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.networks import DATABASE, DEFAULT, DEMO, Named, unknown
from benchmarks.rows import Rows, in_child, write_record
from billhook.progress import shown

from .measure import Task, measure
from .summary import name, summarise

HOME = Path("out") / "closed_loop"
ROWS = Rows(HOME / "rows.jsonl", ("network", "threads", "budget"))


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.closed_loop", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=[*DEFAULT, DEMO], help="demo, or names in torchvision.models")
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.3, 0.5, 0.7], help="shares of our dense latency")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image's side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="compile although there is a row")
    parser.add_argument("--database", type=Path, default=DATABASE, help="measurements of kernels to reuse and extend")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if wrong := unknown(options.networks):
        parser.error(f"unknown network {wrong[0]!r}; name {DEMO} or a network of torchvision.models")
    if options.in_process:
        for network in options.networks:
            _run([Task(Named(network, options.size), options.threads, share) for share in options.budgets], options)
        return 0
    flags = ("size", "threads", "database")
    shared = [word for flag in flags for word in (f"--{flag}", str(getattr(options, flag)))]
    shared += ["--budgets", *map(str, options.budgets), *(["--again"] if options.again else [])]
    failed = [name for name in options.networks if not in_child("benchmarks.closed_loop", "--networks", name, *shared)]
    rows = ROWS.read()
    print(write_record("closed_loop", summarise(rows), rows))
    return 1 if failed else 0


def _run(tasks: list[Task], options: argparse.Namespace) -> None:
    with shown() as progress:
        for task in tasks:
            if options.again or ROWS.find(**task.keys) is None:
                row = measure(task, options.database, progress)
                ROWS.add(row)
                fate = row.get("missed") or f"{row['deviation']:+.2%} of the budget after {len(row['rounds'])} rounds"
                print(f"{name(row)}: {fate}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
