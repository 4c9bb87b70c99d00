"""Schedules: when to score, mask, regrow and cut during training. The vocabulary, and the one interface that they share.

A schedule is a function from a moment of the training to the masks of the next step. It knows nothing of the training loop, and the
loop knows nothing of it: `schedule_training.MaskedTraining` stands between the two, in the optimizer's own hooks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from .saliency import Floats, Scores

PerAxis: TypeAlias = Mapping[str, Floats]  # axis name -> one number per index, shape [axis size]


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """What happens to every index in the next step; an axis that a mapping does not name is left alone.

    keep: what the forward pass multiplies the index with (1 as it is, 0 silenced). Gradients pass straight through to the full
    weights, so that a silenced index learns on and may come back. flow: factor of its gradients. decay: share of its weights that a
    silenced index loses per step; 1 is at once. penalty: strength of an L1 penalty on its weights. memory: what the schedule wants
    to see again.
    """

    keep: PerAxis = field(default_factory=dict[str, Floats])
    flow: PerAxis = field(default_factory=dict[str, Floats])
    decay: float = 0.0
    penalty: PerAxis = field(default_factory=dict[str, Floats])
    memory: PerAxis = field(default_factory=dict[str, Floats])


class Budget(Protocol):
    """The latency budget as schedules see it."""

    goal: float  # seconds that the network may take in the end
    dense: float  # seconds of the whole network

    def kept(self, scores: Scores, target: float) -> PerAxis:
        """Masks (0 or 1) of the indices that an allocation by these scores keeps within `target` seconds."""
        ...

    def seconds(self, sizes: Mapping[str, int]) -> float:
        """Latency at sizes of the axes."""
        ...

    def slopes(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        """Seconds that one index more of each axis costs, around these sizes."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Where the training is: after `step` of `steps` updates (0: before the first).

    masks: those of the step before. scores: mean of the criterion's scores since they were last asked for. pull: derivative of the last
    batch's loss by each index's mask, that is the sum of weight * gradient over what the mask acts on.
    """

    step: int
    steps: int
    masks: Masks
    scores: Callable[[], Scores]
    pull: PerAxis
    budget: Budget

    @property
    def share(self) -> float:
        """Share of the training that is done."""
        return self.step / max(self.steps, 1)

    def target(self, way: float) -> float:
        """Seconds on the exponential way from the dense network (0) to the budget (1), as HALP takes it."""
        way = min(max(way, 0.0), 1.0)
        return float(np.exp(way * np.log(self.budget.goal) + (1 - way) * np.log(self.budget.dense)))

    def kept(self, way: float) -> PerAxis:
        """Masks by the present scores for a latency on the way."""
        return self.budget.kept(self.scores(), self.target(way))


class Schedule(Protocol):
    """The masks of the next step. Called before the first update and after each; pure, so that all processes agree."""

    def __call__(self, moment: Moment, /) -> Masks: ...


def sizes_of(keep: PerAxis) -> dict[str, int]:
    """How many indices of each axis are kept: those above one half."""
    return {name: int((mask > 0.5).sum()) for name, mask in keep.items()}
