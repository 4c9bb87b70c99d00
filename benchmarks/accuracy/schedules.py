"""Schedules under equal training: so many updates inside each, the cut to the budget, then everybody's short fine-tuning."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, islice, repeat
from types import MappingProxyType

import torch

from billhook.api import trace
from billhook.passes.prune import Pruned, carry_out
from billhook.passes.schedule import PerAxis, Schedule
from billhook.passes.schedule_budget import LatencyBudget
from billhook.passes.schedule_learned import Gates, PrimalDual, Thresholds
from billhook.passes.schedule_optimizer import SharpnessAware
from billhook.passes.schedule_steps import AutoSparse, Gmp, Iterative, MaskSparsity, OneShot, Soft, SoftMask
from billhook.passes.schedule_training import MaskedTraining
from billhook.passes.schedule_triggers import EarlyStop, ExploreExploit

from .contenders import Seen
from .data import everywhere
from .tasks import BATCH

STEPS = 60  # updates inside a schedule: three times those of the fine-tuning that follows
RATE = 1e-3
_EVERY = STEPS // 12
_LOOK = 4  # updates whose gradients are enough to score by
_RAMP = 2 * STEPS // 3  # after which cuts that come in parts are complete

SCHEDULES: Mapping[str, Callable[[], Schedule]] = MappingProxyType(
    {
        "one-shot": lambda: OneShot(after=_LOOK),
        "iterative": lambda: Iterative(every=_EVERY, times=_RAMP // _EVERY),
        "gmp": lambda: Gmp(begin=0, end=_RAMP, every=_EVERY),
        "sfp": lambda: Soft(epoch=_EVERY),
        "asfp": lambda: Soft(epoch=_EVERY, rising=True),
        "soft masks": lambda: SoftMask(every=_EVERY),
        "autosparse": lambda: AutoSparse(every=_EVERY),
        "mask sparsity": lambda: MaskSparsity(after=_LOOK),
        "early stop": lambda: EarlyStop(every=_LOOK),
        "explore and exploit": lambda: ExploreExploit(every=3 * _EVERY, explore=_EVERY),
        "gates": Gates,
        "thresholds": Thresholds,
        "primal-dual": PrimalDual,
        "sharpness aware": lambda: OneShot(after=_RAMP),
    }
)


def train_under(name: str, seen: Seen, share: float) -> Pruned:
    """A copy of the dense network after STEPS updates under a schedule that ends at `share` of the predicted dense latency, cut."""
    bench, dense = seen.bench, seen.trained
    model = copy.deepcopy(dense.model).train()
    program = trace(model, dense.example)
    budget = LatencyBudget(program, bench.candidates, bench.tables(), bench.goal(share))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    torch.manual_seed(dense.seed)
    with MaskedTraining(program, model, optimizer, SCHEDULES[name](), steps=STEPS, budget=budget) as training:
        step = _flat(training, seen.scored("taylor")) if name == "sharpness aware" else partial(_plain, optimizer)
        for inputs, targets in islice(chain.from_iterable(repeat(dense.train.loader(BATCH, shuffle=True))), STEPS):
            step(lambda x=inputs, y=targets: everywhere(model(x), y))
        plan = training.plan()
    model.eval()
    return carry_out(program, plan)


def _plain(optimizer: torch.optim.Optimizer, closure: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(closure())
    optimizer.step()


def _flat(training: MaskedTraining, scores: PerAxis) -> Callable[[Callable[[], torch.Tensor]], object]:
    """AdaSAP's update, by the scores that the dense network had."""
    sharp = SharpnessAware(training)
    return lambda closure: sharp.step(closure, scores)
