"""Which worth to trust: of several, the one whose plan loses least once it is repaired (`judge`), with its axes weighed anew.

Sums of scores miss how axes compare, probes miss how cuts act together, and both look at a network that nobody has repaired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import no_progress

from .cut import cut_graph
from .judge import Judge
from .probe_mix import mixtures
from .rescore import rescored
from .saliency import Data, Floats, Scores, retained
from .saliency_criteria import score_axes
from .worth_descent import TRIALS, descend

RIVALS: Mapping[str, tuple[str, ...]] = {"taylor": ("smcp",)}  # of what makes an index, by what reads it
_ALIKE = 1e-3  # of an axis' largest score


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Which indices of an axis are kept (scores), and what sizes are worth (V(k), k = 0 .. size)."""

    scores: Scores
    worth: Mapping[str, Floats]


def best_ranked(
    criterion: str,
    program: Program,
    scores: Scores,
    probed: Mapping[str, Floats],
    sizes: Callable[[Mapping[str, Floats], float], Mapping[str, int]],
    seconds: tuple[float, float],
    data: Data,
    judge: Judge,
    trials: int = TRIALS,
) -> Ranked:
    """The best of plain scores, probed worths, mixtures of the two, and scores taken anew on the way to the budget, its rivals' too;
    its axes are then weighed by what their plans lose.

    sizes: by worths, for a latency in seconds. seconds: of the goal and of the dense network. data: batches to score by. trials: plans
    judged while axes are weighed. Axes without a choice are in the scores only.
    """
    goal, dense = seconds
    plain = {name: retained(s) for name, s in scores.items()}

    def taken(found: Scores, target: float) -> Mapping[str, int]:
        return sizes({name: retained(s) for name, s in found.items()}, target)

    offered = [Ranked(scores, worth) for worth in mixtures(plain, probed)]
    rivals = {name: score_axes(name, program, cut_graph(program, Plan({})), data) for name in RIVALS.get(criterion, ())}
    differing = {name: found for name, found in rivals.items() if not _alike(found, scores)}
    for name, whole in {criterion: scores, **differing}.items():
        anew = rescored(name, program, whole, data, taken, goal, dense)
        offered.append(Ranked(anew, {name: retained(s) for name, s in anew.items()}))
    best = min(offered, key=lambda r: judge(r.scores, sizes(r.worth, goal)))  # the first of equals
    weighed = descend(best.worth, lambda w: sizes(w, goal), lambda chosen: judge(best.scores, chosen), trials, data.progress or no_progress)
    return Ranked(best.scores, weighed)


def _alike(left: Scores, right: Scores) -> bool:
    """Whether two criteria say the same, as Taylor's of makers and of readers do where only homogeneous operators lie between (ReLU)."""
    return all(np.abs(left[name] - right[name]).max(initial=0.0) <= _ALIKE * np.abs(right[name]).max(initial=0.0) for name in right)
