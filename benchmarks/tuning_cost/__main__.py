"""Run the suite, or named parts of it, and write the record: python -m benchmarks.tuning_cost --parts table reuse front.

Rows are kept in out/tuning_cost/rows.jsonl and measurements of kernels in databases beside it, so an interrupted run goes on where
it stopped; but seconds are those of one run: after an interrupt inside a part, they lack what was measured before.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.networks import DEMO, Named, unknown
from benchmarks.rows import Row, Rows, write_record
from billhook.codegen.host import host_target
from billhook.compiler.engine import Engine
from billhook.ir.progress import Progress
from billhook.progress import shown

from . import front, reuse, table
from .pairs import PAIRS, generic, templated
from .summary import summarise

HOME = Path("out") / "tuning_cost"
ROWS = Rows(HOME / "rows.jsonl", ("suite", "part"))
PARTS = ("table", "generic", "reuse", "front")


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning_cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--models", nargs="*", default=["resnet18:resnet34", "mobilenet_v2:efficientnet_b0"], help="first:second, for reuse"
    )
    parser.add_argument("--networks", nargs="*", default=[DEMO], help="for the front")
    parser.add_argument("--step", type=int, default=32, help="widths of the front's axes are multiples of it")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image's side, for reuse and front")
    parser.add_argument("--tuned", type=int, default=8, help="pairs of the generic family that are tuned anew")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    named = [*options.networks, *(name for pair in options.models for name in pair.split(":"))]
    if wrong := unknown(named):
        parser.error(f"unknown network {wrong[0]!r}; name {DEMO} or a network of torchvision.models")
    if wrong := [pair for pair in options.models if pair.count(":") != 1]:
        parser.error(f"--models {wrong[0]}: write first:second")
    with shown() as progress:
        for row in _missing(options, progress):
            ROWS.add(row)
            print(f"{row['suite']}: {row['part']}", flush=True)
    print(write_record("tuning_cost", summarise(ROWS.read()), ROWS.read()))
    return 0


def _missing(options: argparse.Namespace, progress: Progress) -> Iterator[Row]:
    """The rows that are not there yet, one after the other."""
    if "table" in options.parts:
        yield from _table(options.threads, progress)
    if "generic" in options.parts:
        yield from _generic(options.threads, options.tuned, progress)
    if "reuse" in options.parts:
        for pair in options.models:
            first, second = (Named(name, options.size) for name in pair.split(":"))
            where = {"suite": "reuse", "part": f"{first}, then {second}"}
            if ROWS.find(**where) is None:
                yield {**where, **reuse.second_model(first, second, options.threads, _folder("reuse"), progress)}
    if "front" in options.parts:
        for network in (Named(name, options.size) for name in options.networks):
            where = {"suite": "front", "part": f"{network} in steps of {options.step}"}
            if ROWS.find(**where) is None:
                yield {**where, **front.front_cost(network, options.threads, options.step, _folder("front"), progress)}


def _table(threads: int, progress: Progress) -> Iterator[Row]:
    """The surface and the replay each from a database of their own: neither may find what the other has measured."""
    family, target = templated(host_target(threads)), host_target(threads)
    for part in ("surface", "replay", "all candidates"):
        where = {"suite": "table", "part": part}
        if ROWS.find(**where) is not None:
            continue
        with Engine(target, _folder("table") / f"{part.replace(' ', '-')}.db", progress) as engine:
            if part == "surface":
                facts, found = table.by_surface(family, engine)
            elif part == "replay":
                facts, found = table.by_replay(family, engine, progress)
            else:
                facts, found = table.by_measuring(family, engine, progress)
        yield {**where, **facts, "pairs": table.packed(found)}


def _generic(threads: int, count: int, progress: Progress) -> Iterator[Row]:
    """One schedule replayed on all pairs, and some pairs tuned anew."""
    family, target = generic(host_target(threads)), host_target(threads)
    where = {"suite": "table", "part": "generic replay"}
    if ROWS.find(**where) is None:
        facts, found = table.by_tuned_replay(family, target, _folder("schedules-replay"), progress)
        yield {**where, **facts, "pairs": table.packed(found)}
    for number, widths in enumerate(random.Random(0).sample(PAIRS, count)):
        where = {"suite": "table", "part": f"generic tuned {widths[0]}x{widths[1]}"}
        if ROWS.find(**where) is None:
            facts, found = table.by_tuning(family, target, widths, _folder("schedules-tuned"))
            yield {**where, **facts, "pairs": table.packed(found)}
        progress("tune pairs anew", number + 1, count)


def _folder(name: str) -> Path:
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
