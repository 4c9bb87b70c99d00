"""Schedules under equal training: so many updates inside each, the cut to the budget, then everybody's short fine-tuning."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from types import MappingProxyType

import torch

from billhook.api import trace
from billhook.ir.plan import Plan
from billhook.ir.progress import no_progress
from billhook.passes.prune import carry_out
from billhook.passes.schedule import PerAxis, Schedule
from billhook.passes.schedule_budget import LatencyBudget
from billhook.passes.schedule_learned import Gates, PrimalDual, Thresholds
from billhook.passes.schedule_optimizer import SharpnessAware
from billhook.passes.schedule_steps import AutoSparse, Gmp, Iterative, MaskSparsity, OneShot, Soft, SoftMask
from billhook.passes.schedule_training import MaskedTraining
from billhook.passes.schedule_triggers import EarlyStop, ExploreExploit

from .aim import at_measured
from .contenders import Seen
from .data import everywhere, score
from .tasks import BATCH
from .train import recalibrate, recover

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


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """The full weights that a schedule left, and its plan."""

    model: torch.nn.Module
    plan: Plan
    sizes: Mapping[str, int]


def schedule_row(name: str, seen: Seen, budget: float) -> dict[str, object]:
    """Scores after the training under a schedule and the cut (norms recalibrated), and after the fine-tuning."""
    bench, dense = seen.bench, seen.trained
    found = at_measured(
        lambda share: train_under(name, seen, share),
        lambda made: bench.predicted(made.sizes),
        lambda made: bench.measured(made.sizes),
        budget,
        bench.bias(),
        faster=False,
    )
    model = carry_out(trace(found.model, dense.example), found.plan).model
    recalibrate(model, dense)
    once = score(model, dense.test)
    recover(model, dense, no_progress)
    after = score(model, dense.test)
    share = {"share": bench.measured(found.sizes), "predicted_share": bench.predicted(found.sizes)}
    return {"one_shot": [once.accuracy, once.nll], "fine_tuned": [after.accuracy, after.nll], **share, "sizes": dict(found.sizes)}


def train_under(name: str, seen: Seen, share: float) -> Scheduled:
    """A copy of the dense network trained for STEPS updates under a schedule that ends at `share` of the predicted dense latency."""
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
    return Scheduled(model.eval(), plan, plan.sizes())


def _plain(optimizer: torch.optim.Optimizer, closure: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(closure())
    optimizer.step()


def _flat(training: MaskedTraining, scores: PerAxis) -> Callable[[Callable[[], torch.Tensor]], object]:
    """AdaSAP's update, by the scores that the dense network had."""
    sharp = SharpnessAware(training)
    return lambda closure: sharp.step(closure, scores)
