"""Scores taken anew on the way to the budget: what an index is worth once its neighbours are gone.

A criterion looks at the dense network, and a cut far from there it hardly knows. As iterative pruning does between trainings (Molchanov et
al. 2017), but without any, the network is cut in parts; after each the indices that are left are scored again.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from billhook.ir.plan import Plan
from billhook.ir.program import Program

from .cut import cut_graph
from .prune import Pruned, carry_out
from .recover_batchnorm import recalibrate_batchnorm
from .saliency import Data, Floats, Scores, best_indices
from .saliency_criteria import score_axes
from .width_problem import plan_of

Places: TypeAlias = NDArray[np.int64]
PARTS = 3
_LEFT = 1e-30  # the least score of an index that is left: above that of one that went before


def rescored(
    criterion: str,
    program: Program,
    whole: Scores,
    data: Data,
    choose: Callable[[Scores, float], Mapping[str, int]],
    goal: float,
    dense: float,
) -> dict[str, Floats]:
    """Scores of every axis of the program after all parts of the cut but the last; indices that went before have 0.

    whole: scores of the dense network by the criterion. choose: sizes by scores for a latency in seconds; the parts go down from `dense`
    to `goal` in equal ratios. data: batches to score and to recalibrate batch norms by. Raises DataError like `score_axes`.
    """
    scores = {name: np.maximum(s, _LEFT) for name, s in whole.items()}
    for part in range(1, PARTS):
        sizes = choose(scores, dense * (goal / dense) ** (part / PARTS))
        kept = {name: _best(s, sizes.get(name, len(s))) for name, s in scores.items()}
        small = carry_out(program, plan_of(program, scores, {name: len(k) for name, k in kept.items()}))
        scores = _lifted(_scored(criterion, small, data), kept, scores)
    return scores


def _best(scores: Floats, size: int) -> Places:
    """The best of what is left."""
    return np.array(best_indices(scores, min(size, int(np.count_nonzero(scores)))), dtype=np.int64)


def _scored(criterion: str, small: Pruned, data: Data) -> Scores:
    recalibrate_batchnorm(small.model, data.loader, data.batches)
    return score_axes(criterion, small.program, cut_graph(small.program, Plan({})), data)


def _lifted(found: Scores, kept: Mapping[str, Places], before: Scores) -> dict[str, Floats]:
    """Scores of what is left at the places that it has in the whole network.

    An axis that the smaller network has not, or not as such (it went with another's branch, or one head is left and is none), keeps what
    it had.
    """
    lifted = {name: np.zeros(len(old)) for name, old in before.items()}
    for name, places in kept.items():
        new = found.get(name, before[name][places])
        lifted[name][places] = np.maximum(new, _LEFT) if len(new) == len(places) else before[name][places]
    return lifted
