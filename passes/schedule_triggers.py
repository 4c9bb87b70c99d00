"""Schedules that look at the training itself: EPI's trigger, explore and exploit."""

from dataclasses import dataclass

import numpy as np

from .saliency import Floats
from .schedule import Masks, Moment, PerAxis, sizes_of
from .schedule_steps import at_least_one, hard

_SIMILARITIES = " similarities"  # no axis has a space in its name


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """EPI (Shen et al. 2021): prune once, when the allocation that one would make no longer changes.

    Every `every` updates an allocation is made; its similarity to the one before is 1 - mean abs(n - n') / (n + n') over the axes. The
    cut comes when the mean of the last `window` similarities is at least `high` and no longer above the mean before it, and at the
    latest at half of the training.
    """

    every: int
    window: int = 3
    high: float = 0.95

    def __post_init__(self) -> None:
        at_least_one("epi", every=self.every, window=self.window)

    def __call__(self, moment: Moment, /) -> Masks:
        if moment.masks.keep or moment.step % self.every:
            return moment.masks
        kept = moment.kept(1.0)
        before = {n: m for n, m in moment.masks.memory.items() if n != _SIMILARITIES}
        seen = moment.masks.memory.get(_SIMILARITIES, np.zeros(0))
        if before:
            seen = np.append(seen, similarity(before, kept))
        if moment.share >= 0.5 or self._settled(seen):
            return hard(kept)
        return Masks(memory={**kept, _SIMILARITIES: seen})

    def _settled(self, seen: Floats) -> bool:
        if len(seen) <= self.window:
            return False
        now, before = seen[-self.window :].mean(), seen[-self.window - 1 : -1].mean()
        return bool(now >= self.high and now <= before + 1e-12)


def similarity(left: PerAxis, right: PerAxis) -> float:
    """1 - mean over the axes of abs(n - n') / (n + n') of two allocations; 1 for equal ones."""
    pairs = [(n, sizes_of(right)[name]) for name, n in sizes_of(left).items()]
    return 1 - float(np.mean([abs(a - b) / (a + b) if a + b else 0.0 for a, b in pairs]))


@dataclass(frozen=True, slots=True)
class ExploreExploit:
    """Train the active part; every `every` updates explore: for `explore` updates only the silenced indices learn, as if active; then
    all are scored alike, the weakest go and better ones return (2025). In the last `cool` of the training nothing changes.
    """

    every: int
    explore: int
    cool: float = 0.3

    def __post_init__(self) -> None:
        at_least_one("explore and exploit", every=self.every, explore=self.explore, **{"every - explore": self.every - self.explore})

    def __call__(self, moment: Moment, /) -> Masks:
        phase = moment.step % self.every
        if moment.step == 0 or (phase == 0 and moment.share < 1 - self.cool):
            keep = moment.kept(1.0)
            return Masks(keep, flow=keep, memory=keep)
        keep = moment.masks.memory
        if phase == self.every - self.explore and moment.share < 1 - self.cool:
            return Masks(flow={name: 1.0 - mask for name, mask in keep.items()}, memory=keep)
        ended = not moment.masks.keep and moment.share >= 1 - self.cool
        return Masks(keep, flow=keep, memory=keep) if ended else moment.masks
