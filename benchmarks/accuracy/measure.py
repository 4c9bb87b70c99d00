"""One contender on one network: sizes at the wanted measured latency, accuracy at once and after fine-tuning."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.rows import Row
from billhook.api import trace
from billhook.compiler.engine import Build
from billhook.costmodel.static_cost import Roofline
from billhook.ir.latency import Latency
from billhook.ir.progress import Progress
from billhook.ir.weights import digest, read_weights, write_weights
from billhook.passes.prune import carry_out
from billhook.passes.recover import FinetuneConfig, finetune, recalibrate_batchnorm

from .bench import parameters
from .contenders import TORCH_PRUNING, Ranking, Seen, lowered, preset_of, torch_pruning
from .data import Split, score
from .networks import build, example, training

ATTEMPTS = 3
CLOSE = 0.02  # of the wanted share
BATCH = 64
RECOVERY = FinetuneConfig(epochs=1, lr=1e-3, distill=0.7, temperature=3.0)
RECOVERY_PICTURES = 2560


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut network at a measured share of the dense latency."""

    model: nn.Module
    share: Latency
    sizes: dict[str, int]
    attempts: int


def dense_model(network: str, seed: int, train: Split, home: Path, progress: Progress) -> nn.Module:
    """The trained dense network, from scratch or as an earlier run with the same data and options left it."""
    model = build(network, seed)
    config = training(network, seed)
    key = digest({"pictures": train.pictures, **model.state_dict()})[:12]
    path = home / f"{network}-{seed}-{key}-{config.epochs}x{config.lr:g}.safetensors"
    if path.exists():
        read_weights(path, model)
    else:
        torch.manual_seed(seed)
        finetune(model, None, train.loader(BATCH, shuffle=True), config, progress=progress)
        home.mkdir(parents=True, exist_ok=True)
        write_weights(model, path)
    return model.eval()


def at_share(contender: str, seen: Seen, wanted: float) -> Cut:
    """Cut, build and measure, aiming anew, until the measured share is within `CLOSE` of the wanted one; else the nearest."""
    propose = _peer(contender, seen) if contender in TORCH_PRUNING else _preset(contender, seen, wanted)
    aim, best = wanted, None
    for attempt in range(1, ATTEMPTS + 1):
        model, made, sizes = propose(aim)
        share = seen.bench.share(made)
        if best is None or abs(share.seconds - wanted) < abs(best.share.seconds - wanted):
            best = Cut(model, share, sizes, attempt)
        if abs(share.seconds / wanted - 1) <= CLOSE:
            break
        aim *= wanted / share.seconds
    assert best is not None
    return best


Propose = Callable[[float], tuple[nn.Module, Build, dict[str, int]]]


def _preset(contender: str, seen: Seen, wanted: float) -> Propose:
    bench, ranking = seen.bench, Ranking(preset_of(contender), seen)

    def propose(aim: float) -> tuple[nn.Module, Build, dict[str, int]]:
        goal = aim * bench.dense_prediction
        sizes = ranking.sizes(goal, wanted)
        for _ in range(2):  # by kernels that were measured where it matters
            if abs(bench.refine(sizes) / goal - 1) < CLOSE / 2:
                break
            sizes = ranking.sizes(goal, wanted)
        pruned = carry_out(bench.program, ranking.plan(sizes))
        return pruned.model, bench.build(pruned.program.graph), dict(sizes)

    return propose


def _peer(contender: str, seen: Seen) -> Propose:
    """Torch-Pruning's ratio by bisection on a static cost, which the measured share then corrects."""
    bench, law = seen.bench, Roofline()
    batch = next(iter(seen.train.loader(200)))

    def cut(ratio: float) -> nn.Module:
        return torch_pruning(contender, seen.model, example(), ratio, (batch[0], batch[1]))

    def static(model: nn.Module) -> float:
        part = bench.engine.lower(lowered(trace(model, example())), bench.program.example)
        return sum(law(k.workload) for k in part.network.kernels)

    dense = static(seen.model)
    tried: dict[float, float] = {}

    def propose(aim: float) -> tuple[nn.Module, Build, dict[str, int]]:
        low, high = 0.0, 0.9
        for _ in range(6):
            middle = (low + high) / 2
            if middle not in tried:
                tried[middle] = static(cut(middle)) / dense
            low, high = (middle, high) if tried[middle] > aim else (low, middle)
        model = cut(high)
        sizes = {name: int(p.shape[0]) for name, p in model.named_parameters() if name.endswith("weight")}
        return model, bench.build(lowered(trace(model, example()))), sizes

    return propose


def measure(network: str, seed: int, wanted: float, contender: str, seen: Seen, test: Split, progress: Progress) -> Row:
    """The row of a contender: measured share with its interval, scores one-shot (norms recalibrated) and fine-tuned."""
    start = time.perf_counter()
    cut = at_share(contender, seen, wanted)
    model = cut.model
    recalibrate_batchnorm(model, seen.train.loader(100), 10)
    once = score(model, test)
    torch.manual_seed(1000 + seed)
    finetune(
        model, seen.model, seen.train.first(RECOVERY_PICTURES).loader(BATCH, shuffle=True), replace(RECOVERY, seed=seed), progress=progress
    )
    after = score(model, test)
    return {
        "part": "presets",
        "network": network,
        "seed": seed,
        "budget": wanted,
        "contender": contender,
        "share": [cut.share.seconds, cut.share.low, cut.share.high],
        "one_shot": [once.accuracy, once.nll],
        "fine_tuned": [after.accuracy, after.nll],
        "parameters": parameters(model),
        "sizes": cut.sizes,
        "attempts": cut.attempts,
        "seconds": time.perf_counter() - start,
    }
