"""Run the suite, or the named models, and write the record: python -m benchmarks.kernels resnet18 resnet50 --threads 1 2.

Rows are kept in out/kernels/rows.jsonl and measurements of kernels in out/kernels/kernels.db, so a run that was interrupted goes on where
it stopped. Every case runs in a process of its own.
"""

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path

from .case import DENSE, MODELS, PRECISIONS, PRUNED, Case
from .measure import PEERS_OF, measure
from .record import ROWS, add_row, line, read_rows, write_record


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="*", type=int, default=[1])
    parser.add_argument(
        "--precision", nargs="*", choices=PRECISIONS, default=["fp32"], help="of ours; each is compared with peers in the same"
    )
    parser.add_argument("--variant", nargs="*", choices=(DENSE, PRUNED), default=[DENSE])
    parser.add_argument("--again", action="store_true", help="measure although there is a row")
    parser.add_argument("--no-peers", action="store_true", help="only ours: prints a row and its kernels, and keeps nothing")
    parser.add_argument("--database", type=Path, default=ROWS.with_name("kernels.db"), help="measurements of kernels to reuse and extend")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = sorted(set(options.models) - set(MODELS))
    if unknown:
        parser.error(f"unknown model {unknown[0]!r}; known: {', '.join(MODELS)}")
    settings = product(options.models, options.threads, options.batch, options.precision, options.variant)
    cases = [Case(*setting) for setting in settings]
    if options.in_process or options.no_peers:
        for case in cases:
            _run(case, options.database, keep=not options.no_peers)
        return 0
    failed = [case for case in cases if (options.again or str(case) not in read_rows()) and not _in_child(case, options.database)]
    print(write_record(row for _, row in sorted(read_rows().items())))
    return 1 if failed else 0


def _in_child(case: Case, database: Path) -> bool:
    """Measure in a fresh process; whether it succeeded."""
    assert __package__
    arguments = [case.model, "--threads", str(case.threads), "--batch", str(case.batch), "--precision", case.precision]
    arguments += ["--variant", case.variant, "--database", str(database), "--in-process"]
    command = [sys.executable, "-m", __package__, *arguments]
    return subprocess.call(command) == 0


def _run(case: Case, database: Path, *, keep: bool) -> None:
    row = measure(case, database, PEERS_OF[case.precision] if keep else (), _silent)
    if keep:
        add_row(row)
    else:
        for kernel in sorted(row["kernels"], key=lambda k: -k["inside"]):
            times = f"{kernel['inside'] * 1e3:8.3f} ms (alone {kernel['alone'] * 1e3:8.3f}) {kernel['gflops']:6.1f} GFLOP/s"
            print(f"{times} {kernel['template']:11} {kernel['name']}: {kernel['workload'][:150]}")
    print(line(row), f"error {row['error']:.1e}", flush=True)


def _silent(_stage: str, _done: int, _total: int) -> None:
    """The record is what this suite shows."""


if __name__ == "__main__":
    sys.exit(main())
