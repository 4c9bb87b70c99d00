"""Which plan to trust: of the plans that several scores and worths lead to, the one whose network loses least once it is repaired.

Sums of scores miss how axes compare, probes miss how cuts act together, and both look at a network that nobody has repaired. After the
readers of what was cut are solved anew (`compensate.reconstruct`) on a few batches, which takes seconds and no training, the loss tells
plans apart even where all of them answered by chance before, and in the order that fine-tuning leaves them in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from billhook.ir.plan import Plan
from billhook.ir.program import Program

from .batches import apply, mode, scalar_loss, split
from .compensate import reconstruct
from .prune import Pruned, carry_out
from .recover_batchnorm import recalibrate_batchnorm
from .saliency import Data, Floats, Scores

REPAIRED = 2  # batches that are enough to tell plans apart


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Which indices of an axis are kept (scores), and what sizes are worth (V(k), k = 0 .. size)."""

    scores: Scores
    worth: Mapping[str, Floats]


def repaired(program: Program, plan: Plan, data: Data) -> Pruned:
    """The plan carried out, batch norms recalibrated, the readers of what was cut solved anew. Raises DataError without data."""
    small = carry_out(program, plan)
    recalibrate_batchnorm(small.model, data.loader, data.batches)
    reconstruct(program, small, data)
    recalibrate_batchnorm(small.model, data.loader, data.batches)
    return small


def repaired_loss(program: Program, plan: Plan, data: Data) -> float:
    """Mean loss of the repaired network on the batches that it was repaired with. Raises DataError like `scalar_loss`."""
    model = repaired(program, plan, data).model
    losses: list[float] = []
    with mode(model, training=False), torch.no_grad():
        for place, batch in enumerate(islice(data.loader, data.batches)):
            inputs, target = split(batch)
            losses.append(float(scalar_loss(data.loss, apply(model, inputs), target, place)))
    return float(np.mean(losses))


def least_loss(offered: Sequence[Ranked], plan: Callable[[Ranked], Plan], loss: Callable[[Plan], float]) -> Ranked:
    """The one whose plan has the lowest loss, the first of several; equal plans are measured once."""
    known: dict[tuple[tuple[str, tuple[int, ...]], ...], float] = {}
    losses: list[float] = []
    for ranked in offered:
        made = plan(ranked)
        key = tuple(sorted((name, tuple(kept)) for name, kept in made.kept.items()))
        if key not in known:
            known[key] = loss(made)
        losses.append(known[key])
    return offered[int(np.argmin(losses))]
