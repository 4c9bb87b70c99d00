"""One contender on one network: sizes at the wanted latency, accuracy at once and after fine-tuning."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.rows import Row
from billhook.ir.progress import Progress
from billhook.passes.judge import repair
from billhook.passes.prune import carry_out

from .aim import at_measured, nearest
from .bench import changed
from .contenders import OURS, PEERS, SCORED, Ranking, Seen, preset_of
from .data import score
from .schedules import train_under
from .torch_pruning import pruned, sizes_of
from .train import recalibrate, recover

SCHEDULE = "schedule/"  # in front of a contender's name: a schedule of `.schedules`
_TP_BATCH = 200


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut network, its sizes, and what its method repairs before any training."""

    model: nn.Module
    sizes: dict[str, int]
    repair: Callable[[], object] | None = None


def contend(contender: str, seen: Seen, share: float) -> Cut:
    """A cut network that takes `share` of the dense latency once it is built."""
    bench = seen.bench
    schedule = contender.removeprefix(SCHEDULE)
    if schedule != contender:
        make = partial(_scheduled, schedule, seen)
    else:
        make = _peer(contender, seen) if contender in PEERS else _preset(contender, seen, share)
    return at_measured(
        make, lambda made: bench.predicted(made.sizes), lambda made: bench.measured(made.sizes), share, bench.bias(), contender == OURS
    )


def _preset(contender: str, seen: Seen, share: float) -> Callable[[float], Cut]:
    ranking = Ranking(preset_of(contender), seen, chooses=contender == OURS)
    ranking.prepare(share / seen.bench.bias())

    def make(aim: float) -> Cut:
        sizes = ranking.sizes(aim)
        small = carry_out(seen.program, ranking.plan(sizes))
        return Cut(small.model, sizes, partial(repair, seen.program, small, seen.data(SCORED)) if contender == OURS else None)

    return make


def _scheduled(schedule: str, seen: Seen, aim: float) -> Cut:
    small = train_under(schedule, seen, aim)
    return Cut(small.model, small.plan.sizes())


def _peer(contender: str, seen: Seen) -> Callable[[float], Cut]:
    """Torch-Pruning at the ratio that gives the latency."""
    bench, trained = seen.bench, seen.trained
    batch = next(iter(trained.train.loader(_TP_BATCH)))

    def cut(kept: float) -> Cut:
        model = pruned(contender, trained.model, (batch[0], batch[1]), 1 - kept)
        return Cut(model, dict(sizes_of(model, bench.program)))

    return lambda aim: nearest(cut, lambda made: bench.predicted(made.sizes), aim, min(aim**0.5, 0.95), 0.1, 1.0, 0.5)


def measure(network: str, seed: int, budget: float, contender: str, seen: Seen, progress: Progress, *, part: str, tune: bool) -> Row:
    """The row of a contender: its share of the dense latency; scores one-shot (norms recalibrated) and, with `tune`, after fine-tuning."""
    start, cpu = time.perf_counter(), time.process_time()
    cut = contend(contender, seen, budget)
    model, sizes, dense = cut.model, cut.sizes, seen.trained
    recalibrate(model, dense)
    if cut.repair is not None:
        cut.repair()
        recalibrate(model, dense)
    once = score(model, dense.test)
    row: Row = {"part": part, "network": network, "seed": seed, "budget": budget, "contender": contender}
    row |= {"share": seen.bench.measured(sizes), "predicted_share": seen.bench.predicted(sizes), "one_shot": [once.accuracy, once.nll]}
    if tune:
        recover(model, dense, progress)
        after = score(model, dense.test)
        row["fine_tuned"] = [after.accuracy, after.nll]
    size = sum(p.numel() for p in model.parameters())
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return {**row, "parameters": size, "sizes": changed(sizes, seen.bench), **spent}
