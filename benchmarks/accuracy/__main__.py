"""Run the suite and write the record: python -m benchmarks.accuracy --networks cnn lm --budgets 0.3 0.5 0.7 --seeds 0 1 2.

Rows are kept in out/accuracy/, trained dense networks and measured kernels beside them: an interrupted run goes on where it
stopped. --contenders takes names of presets and of Torch-Pruning's pruners (tp-taylor ...); --part criteria compares every
criterion one-shot under our allocation, --part schedules every schedule with equal training. Every network is built and measured
against the dense one.
"""

import argparse
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.rows import Rows, write_record
from billhook.ir.progress import Progress, no_progress
from billhook.passes.saliency_criteria import CRITERIA

from . import data
from .bench import Bench, open_engine
from .contenders import CONTENDERS, Seen
from .extra import compensation_rows, fidelity_row
from .measure import SCHEDULE, measure
from .schedules import SCHEDULES
from .summary import name, summarise
from .tasks import TASKS, Trained
from .torch_pruning import applies
from .train import trained

HOME = Path("out") / "accuracy"
KEYS = ("part", "network", "seed", "budget", "contender")
ROWS = Rows(HOME / "rows.jsonl", KEYS)
BUILT = Rows(HOME / "built.jsonl", ("network", "form"))  # form: the sizes as text
LACKS = (
    "networks, budgets, seeds and criteria that are not in the summary; a detector; NetAdapt; one thread of one machine, other programs "
    "beside it"
)
NAMED = {
    "presets": CONTENDERS,
    "criteria": tuple(f"criterion/{name}" for name in CRITERIA),
    "schedules": tuple(f"{SCHEDULE}{name}" for name in SCHEDULES),
}
PARTS = (*NAMED, "fidelity", "compensation")


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default="presets")
    parser.add_argument("--networks", nargs="*", choices=TASKS, default=[*TASKS])
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.5, 0.3, 0.7], help="shares of the dense network's measured latency")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--contenders", nargs="*", default=None)
    parser.add_argument("--again", action="store_true", help="measure although there is a row")
    parser.add_argument("--record", action="store_true", help="only write the record from the rows that there are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.record:
        for network in options.networks:
            RUNS[options.part](network, options)
    rows, built = ROWS.read(), BUILT.read()
    print(write_record("accuracy", summarise(rows), rows, built=built, lacks=LACKS))
    return 0


@contextmanager
def _bench(dense: Trained, progress: Progress = no_progress) -> Generator[Bench]:
    """The bench of a network's architecture."""
    with open_engine(HOME / "kernels.db", progress) as engine:
        yield Bench(dense.name, dense.model, dense.example, engine, BUILT, progress)


def _contest(network: str, options: argparse.Namespace) -> None:
    """All seeds, budgets and contenders on one network."""
    part = options.part
    named = options.contenders or NAMED[part]
    for seed in options.seeds:
        dense = trained(network, seed, HOME / "dense", no_progress)
        cases = [(b, c) for b in options.budgets for c in named if applies(c, dense.model)]
        keys = {"part": part, "network": network, "seed": seed}
        missing = [(b, c) for b, c in cases if options.again or ROWS.find(**keys, budget=b, contender=c) is None]
        if not missing:
            continue
        found = data.score(dense.model, dense.test)
        print(f"{network} seed {seed}: dense accuracy {found.accuracy:.4f}, nll {found.nll:.4f}", flush=True)
        dense_scores = {"one_shot": [found.accuracy, found.nll], "fine_tuned": [found.accuracy, found.nll]}
        with _bench(dense) as bench:
            seen = Seen(bench, dense)
            for budget, contender in missing:
                ROWS.add({**keys, "budget": budget, "contender": "dense", **dense_scores, "share": 1.0, "sizes": {}})
                _say(ROWS, measure(network, seed, budget, contender, seen, no_progress, part=part, tune=part != "criteria"))


def _each(network: str, options: argparse.Namespace, rows: Callable[[Seen, float], Iterator[dict[str, object]]]) -> None:
    """Rows of one kind for all seeds and budgets that have none."""
    for seed in options.seeds:
        keys = {"part": options.part, "network": network, "seed": seed}
        missing = [b for b in options.budgets if options.again or ROWS.find(**keys, budget=b) is None]
        if not missing:
            continue
        dense = trained(network, seed, HOME / "dense", no_progress)
        with _bench(dense) as bench:
            seen = Seen(bench, dense)
            for budget in missing:
                for row in rows(seen, budget):
                    _say(ROWS, {**keys, "budget": budget, **row})


def _say(rows: Rows, row: dict[str, object]) -> None:
    rows.add(row)
    print(name(row), {k: v for k, v in row.items() if k not in {*KEYS, "sizes"}}, flush=True)


RUNS = {
    "presets": _contest,
    "criteria": _contest,
    "schedules": _contest,
    "fidelity": lambda network, options: _each(network, options, fidelity_row),
    "compensation": lambda network, options: _each(network, options, compensation_rows),
}

if __name__ == "__main__":
    sys.exit(main())
