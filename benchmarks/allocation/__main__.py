"""Run the suite and write the record: python -m benchmarks.allocation --networks resnet50 densenet121 vit_b_16 swin_t.

Costs are those of a static law (operations and bytes), not milliseconds: the solver is judged, not the kernels. Rows are kept in
out/allocation/rows.jsonl, so an interrupted run goes on where it stopped. Every network runs in a process of its own.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.networks import unknown
from benchmarks.rows import Rows, in_child, write_record

from .measure import network_row, small_row
from .summary import summarise

ROWS = Rows(Path("out") / "allocation" / "rows.jsonl", ("network",))
NETWORKS = ("resnet50", "densenet121", "vit_b_16", "swin_t")
SMALL = range(10)


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.allocation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS], help="names in torchvision.models")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image's side")
    parser.add_argument("--again", action="store_true", help="solve although there is a row")
    parser.add_argument("--record", action="store_true", help="only write the record from the rows that there are")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if wrong := unknown(options.networks):
        parser.error(f"unknown network {wrong[0]!r}; name one of torchvision.models")
    if options.in_process:
        for network in options.networks:
            if options.again or ROWS.find(network=network) is None:
                ROWS.add(network_row(network, options.size))
        return 0
    failed = [] if options.record else _run(options)
    rows = ROWS.read()
    print(write_record("allocation", summarise(rows), rows, cost="static law: 20 + operations / 100 + bytes / 10; no milliseconds"))
    return 1 if failed else 0


def _run(options: argparse.Namespace) -> list[str]:
    """Everything that has no row yet; the networks that failed."""
    for seed in SMALL:
        if options.again or ROWS.find(network=f"random {seed}") is None:
            ROWS.add(small_row(seed))
    shared = ["--size", str(options.size), *(["--again"] if options.again else [])]
    return [n for n in options.networks if not in_child("benchmarks.allocation", "--networks", n, *shared)]


if __name__ == "__main__":
    sys.exit(main())
