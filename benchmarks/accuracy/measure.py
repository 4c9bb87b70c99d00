"""One contender on one network: sizes at the wanted latency, accuracy at once and after fine-tuning."""

import time
from collections.abc import Mapping

from torch import nn

from benchmarks.rows import Row
from billhook.ir.progress import Progress
from billhook.passes.prune import carry_out

from .aim import nearest
from .bench import Bench
from .contenders import PEERS, Ranking, Seen, preset_of
from .data import score
from .torch_pruning import pruned, sizes_of
from .train import recalibrate, recover

_TP_BATCH = 200


def contend(contender: str, seen: Seen, share: float) -> tuple[nn.Module, dict[str, int]]:
    """A cut network that is expected to take `share` of the dense latency, and its sizes."""
    if contender in PEERS:
        return _peer(contender, seen, share)
    ranking = Ranking(preset_of(contender), seen, contender == "ours")
    sizes = ranking.sizes(share)
    return carry_out(seen.program, ranking.plan(sizes)).model, sizes


def _peer(contender: str, seen: Seen, share: float) -> tuple[nn.Module, dict[str, int]]:
    """Torch-Pruning at the ratio that gives the latency."""
    bench, trained = seen.bench, seen.trained
    batch = next(iter(trained.train.loader(_TP_BATCH)))

    def make(kept: float) -> tuple[nn.Module, dict[str, int]]:
        model = pruned(contender, trained.model, (batch[0], batch[1]), 1 - kept)
        return model, dict(sizes_of(model, bench.program))

    found = nearest(make, lambda made: bench.share(made[1]), share, share**0.5, 0.3, 1.0, 0.5)
    bench.refine(found[1])
    return found


def measure(network: str, seed: int, budget: float, contender: str, seen: Seen, progress: Progress, *, part: str, tune: bool) -> Row:
    """The row of a contender: expected share, scores one-shot (norms recalibrated) and, with `tune`, after equal fine-tuning."""
    start, cpu = time.perf_counter(), time.process_time()
    model, sizes = contend(contender, seen, budget)
    dense = seen.trained
    recalibrate(model, dense)
    once = score(model, dense.test)
    row: Row = {"part": part, "network": network, "seed": seed, "budget": budget, "contender": contender}
    row |= {"expected_share": seen.bench.share(sizes), "one_shot": [once.accuracy, once.nll]}
    if tune:
        recover(model, dense, progress)
        after = score(model, dense.test)
        row["fine_tuned"] = [after.accuracy, after.nll]
    size = sum(p.numel() for p in model.parameters())
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return {**row, "parameters": size, "sizes": changed(sizes, seen.bench), **spent}


def changed(sizes: Mapping[str, int], bench: Bench) -> dict[str, int]:
    """The sizes of the axes that are not whole, in the order of the axes."""
    return {a.name: sizes[a.name] for a in bench.program.axes if sizes.get(a.name, a.size) < a.size}


def verify(bench: Bench, sizes: Mapping[str, int]) -> list[float]:
    """[share, low, high] of the dense latency, measured on networks that were built."""
    found = bench.built_share(sizes)
    return [found.seconds, found.low, found.high]
