"""Run the suite and write the record: python -m benchmarks.accuracy --networks cnn vit --budgets 0.5 --seeds 0 1 2.

Rows are kept in out/accuracy/rows.jsonl, trained dense networks and measured kernels beside them: an interrupted run goes on where
it stopped, and a part can be run again by naming it. --contenders takes names of presets, of Torch-Pruning's pruners (tp-l2 ...)
and criterion/NAME, which is that criterion under our allocation.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.rows import Rows, write_record
from billhook.api import trace
from billhook.progress import shown

from . import data
from .bench import Bench, open_engine
from .contenders import CONTENDERS, Seen
from .measure import dense_model, measure
from .networks import NETWORKS, example
from .summary import name, summarise

HOME = Path("out") / "accuracy"
ROWS = Rows(HOME / "rows.jsonl", ("part", "network", "seed", "budget", "contender"))
TRAIN, TEST = 4000, 2000


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.5], help="shares of the dense network's measured latency")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--contenders", nargs="*", default=[*CONTENDERS])
    parser.add_argument("--again", action="store_true", help="measure although there is a row")
    parser.add_argument("--record", action="store_true", help="only write the record from the rows that there are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.record:
        train, test = data.load(TRAIN, TEST)
        for network in options.networks:
            for seed in options.seeds:
                _run(network, seed, train, test, options)
    rows = ROWS.read()
    print(write_record("accuracy", summarise(rows), rows))
    return 0


def _run(network: str, seed: int, train: data.Split, test: data.Split, options: argparse.Namespace) -> None:
    """All budgets and contenders on one dense network."""
    cases = [(b, c) for b in options.budgets for c in options.contenders]
    keys = {"part": "presets", "network": network, "seed": seed}
    missing = [(b, c) for b, c in cases if options.again or ROWS.find(**keys, budget=b, contender=c) is None]
    if not missing:
        return
    with shown() as progress, open_engine(HOME / "kernels.db", progress) as engine:
        model = dense_model(network, seed, train, HOME / "dense", progress)
        dense = data.score(model, test)
        print(f"{network} seed {seed}: dense accuracy {dense.accuracy:.4f}, nll {dense.nll:.4f}", flush=True)
        bench = Bench(trace(model, example()), engine, progress)
        for budget in options.budgets:
            scores = {"one_shot": [dense.accuracy, dense.nll], "fine_tuned": [dense.accuracy, dense.nll], "share": [1.0, 1.0, 1.0]}
            ROWS.add({**keys, "budget": budget, "contender": "dense", **scores, "dense_s": bench.dense_latency().seconds})
        for budget, contender in missing:
            row = measure(network, seed, budget, contender, Seen(bench, model, train), test, progress)
            ROWS.add(row)
            print(f"{name(row)}: {row['share'][0]:.3f} of dense, {row['one_shot'][0]:.4f} -> {row['fine_tuned'][0]:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
