"""Which plan to trust: of the plans that several scores and worths lead to, the one whose network loses least once it is repaired.

Sums of scores miss how axes compare, probes miss how cuts act together, and both look at a network that nobody has repaired. After the
readers of what was cut are solved anew (`compensate.reconstruct`) on a few batches, which takes seconds and no training, the loss tells
plans apart even where all of them answered by chance before, about in the order that fine-tuning leaves them in.
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
from .cut import cut_graph
from .probe_mix import mixtures
from .prune import Pruned, carry_out
from .recover_batchnorm import recalibrate_batchnorm
from .rescore import rescored
from .saliency import Data, Floats, Scores, retained
from .saliency_criteria import score_axes
from .width_problem import plan_of

RIVALS: Mapping[str, tuple[str, ...]] = {"taylor": ("smcp",)}  # of what makes an index, by what reads it
_ALIKE = 1e-3  # of an axis' largest score


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Which indices of an axis are kept (scores), and what sizes are worth (V(k), k = 0 .. size)."""

    scores: Scores
    worth: Mapping[str, Floats]


def repaired(program: Program, plan: Plan, data: Data) -> Pruned:
    """The plan carried out, batch norms recalibrated, the readers of what was cut solved anew. Raises DataError without data."""
    small = carry_out(program, plan)
    repair(program, small, data)
    recalibrate_batchnorm(small.model, data.loader, data.batches)
    return small


def repair(program: Program, small: Pruned, data: Data) -> None:
    """Solve the readers of what was cut anew, in place, behind recalibrated batch norms; these are to be recalibrated again afterwards."""
    recalibrate_batchnorm(small.model, data.loader, data.batches)
    reconstruct(program, small, data)


def repaired_loss(program: Program, plan: Plan, data: Data) -> float:
    """Mean loss of the repaired network on as many batches after those that it was repaired with, or on these where no more come.

    Plans differ in how much of the few batches their readers learn by heart. Raises DataError like `scalar_loss`.
    """
    model = repaired(program, plan, data).model
    batches = list(islice(data.loader, data.batches and 2 * data.batches))
    losses: list[float] = []
    with mode(model, training=False), torch.no_grad():
        for place, batch in enumerate(batches[data.batches :] or batches):
            inputs, target = split(batch)
            losses.append(float(scalar_loss(data.loss, apply(model, inputs), target, place)))
    return float(np.mean(losses))


def best_ranked(
    criterion: str,
    program: Program,
    scores: Scores,
    probed: Mapping[str, Floats],
    sizes: Callable[[Mapping[str, Floats], float], Mapping[str, int]],
    seconds: tuple[float, float],
    data: tuple[Data, Data],
) -> Ranked:
    """The best of plain scores, probed worths, mixtures of the two, and scores taken anew on the way to the budget, its rivals' too.

    sizes: by worths, for a latency in seconds. seconds: of the goal and of the dense network. data: batches to score by, and the few to
    judge plans by. Axes without a choice are in the scores only.
    """
    goal, dense = seconds
    plain = {name: retained(s) for name, s in scores.items()}

    def taken(found: Scores, target: float) -> Mapping[str, int]:
        return sizes({name: retained(s) for name, s in found.items()}, target)

    offered = [Ranked(scores, worth) for worth in mixtures(plain, probed)]
    rivals = {name: score_axes(name, program, cut_graph(program, Plan({})), data[0]) for name in RIVALS.get(criterion, ())}
    differing = {name: found for name, found in rivals.items() if not _alike(found, scores)}
    for name, whole in {criterion: scores, **differing}.items():
        anew = rescored(name, program, whole, data[0], taken, goal, dense)
        offered.append(Ranked(anew, {name: retained(s) for name, s in anew.items()}))
    return least_loss(
        offered, lambda r: plan_of(program, r.scores, sizes(r.worth, goal)), lambda plan: repaired_loss(program, plan, data[1])
    )


def _alike(left: Scores, right: Scores) -> bool:
    """Whether two criteria say the same, as Taylor's of makers and of readers do where only homogeneous operators lie between (ReLU)."""
    return all(np.abs(left[name] - right[name]).max(initial=0.0) <= _ALIKE * np.abs(right[name]).max(initial=0.0) for name in right)


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
