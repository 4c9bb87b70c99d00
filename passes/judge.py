"""What a plan loses once it is repaired, which takes a few batches and no training.

After the readers of what was cut are solved anew (`compensate.reconstruct`) the loss tells plans apart even where all of them answered by
chance before, about in the order that fine-tuning leaves them in.
"""

from collections.abc import Mapping
from itertools import islice

import numpy as np
import torch

from billhook.ir.plan import Plan
from billhook.ir.program import Program

from .batches import apply, mode, scalar_loss, split
from .compensate import reconstruct
from .prune import Pruned, carry_out
from .reader_features import ROWS
from .recover_batchnorm import recalibrate_batchnorm
from .saliency import Data, Scores
from .width_problem import plan_of

JUDGED_ROWS = ROWS // 4  # of features of one batch: less than a network is repaired with, as many plans are judged
SWEEPS = 3  # over all readers, where batch norms change what a later one sees; plans are told apart after one


def repair(program: Program, small: Pruned, data: Data, sweeps: int = SWEEPS, rows: int = ROWS) -> None:
    """Recalibrate batch norms and solve the readers of what was cut anew, in place. Raises DataError without data.

    Recalibrated norms change what later readers are fed, so that further sweeps over them gain what the first had to guess; without
    norms it would repeat the first.
    """
    norms = recalibrate_batchnorm(small.model, data.loader, data.batches)
    for _ in range(sweeps if norms else 1):
        reconstruct(program, small, data, rows=rows)
        recalibrate_batchnorm(small.model, data.loader, data.batches)


def repaired_loss(program: Program, plan: Plan, data: Data) -> float:
    """Mean loss of the repaired network on as many batches after those that it was repaired with, or on these where no more come.

    Plans differ in how much of the few batches their readers learn by heart. Raises DataError like `scalar_loss`.
    """
    small = carry_out(program, plan)
    repair(program, small, data, sweeps=1, rows=JUDGED_ROWS)
    batches = list(islice(data.loader, data.batches and 2 * data.batches))
    losses: list[float] = []
    with mode(small.model, training=False), torch.no_grad():
        for place, batch in enumerate(batches[data.batches :] or batches):
            inputs, target = split(batch)
            losses.append(float(scalar_loss(data.loss, apply(small.model, inputs), target, place)))
    return float(np.mean(losses))


class Judge:
    """Losses of repaired plans of one program by the same few batches. Equal plans are repaired once."""

    def __init__(self, program: Program, data: Data) -> None:
        self._program, self._data = program, data
        self._known: dict[tuple[tuple[str, tuple[int, ...]], ...], float] = {}

    def __call__(self, scores: Scores, sizes: Mapping[str, int]) -> float:
        """The loss of the plan that keeps the best of each axis by the scores. Raises DataError."""
        plan = plan_of(self._program, scores, sizes)
        key = tuple(sorted((name, tuple(kept)) for name, kept in plan.kept.items()))
        if key not in self._known:
            self._known[key] = repaired_loss(self._program, plan, self._data)
        return self._known[key]
