"""Schedules that follow the clock: one-shot, iterative, GMP's ramp, soft filter pruning, SMCP's soft masks."""

import math
from dataclasses import dataclass

import numpy as np

from billhook.ir.errors import OptionError

from .schedule import Masks, Moment, PerAxis


@dataclass(frozen=True, slots=True)
class OneShot:
    """Score and allocate once, after `after` steps; then train what is left."""

    after: int = 0

    def __call__(self, moment: Moment, /) -> Masks:
        return hard(moment.kept(1.0)) if moment.step == self.after else moment.masks


@dataclass(frozen=True, slots=True)
class Iterative:
    """`times` cuts, `every` updates apart, to targets exp(a ln goal + (1 - a) ln dense), a = t / times (HALP, Shen et al. 2022).

    Scores are means over the interval; what is gone stays gone.
    """

    times: int
    every: int

    def __post_init__(self) -> None:
        at_least_one("iterative", times=self.times, every=self.every)

    def __call__(self, moment: Moment, /) -> Masks:
        turn, rest = divmod(moment.step, self.every)
        if rest or not 1 <= turn <= self.times:
            return moment.masks
        return hard(_and(moment.masks.keep, moment.kept(turn / self.times)))


@dataclass(frozen=True, slots=True)
class Gmp:
    """Gradual pruning (GMP, Zhu and Gupta 2017): the share of the way is 1 - (1 - t/T)^3 from `begin` to `end`, every `every` updates."""

    begin: int
    end: int
    every: int = 1

    def __post_init__(self) -> None:
        at_least_one("gmp", every=self.every, end=self.end - self.begin)

    def way(self, step: int) -> float:
        """Share of the way to the budget at a step."""
        done = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return 1 - (1 - done) ** 3

    def __call__(self, moment: Moment, /) -> Masks:
        if moment.step < self.begin or moment.step > self.end or (moment.step - self.begin) % self.every:
            return moment.masks
        return hard(_and(moment.masks.keep, moment.kept(self.way(moment.step))))


@dataclass(frozen=True, slots=True)
class Soft:
    """Soft filter pruning (He et al. 2018): at the end of every epoch the weights of the lowest indices become zero, and learn on.

    epoch: updates per epoch. rising: ASFP, which raises the share of the way from epoch to epoch, by 1 - exp(-3 t / T) scaled to end at 1.
    In the last epoch the masks stay.
    """

    epoch: int
    rising: bool = False

    def __post_init__(self) -> None:
        at_least_one("soft", epoch=self.epoch)

    def __call__(self, moment: Moment, /) -> Masks:
        if moment.step and moment.step % self.epoch == 0:
            way = _saturating(moment.share, 3.0) if self.rising else 1.0
            return Masks(moment.kept(way), decay=1.0)
        last = moment.steps - moment.step < self.epoch
        return moment.masks if last and moment.masks.keep else Masks()


@dataclass(frozen=True, slots=True)
class SoftMask:
    """SMCP's soft masks (Humble et al. 2022): re-solve every `every` updates over *all* indices, so that masked ones may return.

    Gradients pass straight through. The way follows (1 - exp(-k t)) / (1 - exp(-k T)) with `rate` k T until `cool` of the training
    is left, in which the masks are frozen and masked indices no longer learn. decay: what masked weights lose per update.
    """

    every: int
    rate: float = 4.0
    cool: float = 0.3
    decay: float = 1e-3

    def __post_init__(self) -> None:
        at_least_one("soft masks", every=self.every)
        if not 0 < self.cool < 1:
            raise OptionError(f"soft masks: cool must be a share between 0 and 1, not {self.cool}")

    def __call__(self, moment: Moment, /) -> Masks:
        active = 1 - self.cool
        if moment.share >= active:
            last = moment.masks.keep if moment.masks.keep and moment.masks.flow else moment.kept(1.0)
            return Masks(last, flow=last)
        if moment.step % self.every or not moment.step:
            return moment.masks
        return Masks(moment.kept(_saturating(moment.share / active, self.rate)), decay=self.decay)


@dataclass(frozen=True, slots=True)
class AutoSparse:
    """Gradients of masked indices are scaled by a factor that falls from 1 to 0 by a half cosine (Kundu et al. 2023).

    Between soft masks (1) and hard ones (0). Masks are chosen anew every `every` updates, for the whole budget.
    """

    every: int

    def __post_init__(self) -> None:
        at_least_one("autosparse", every=self.every)

    def __call__(self, moment: Moment, /) -> Masks:
        factor = 0.5 * (1 + math.cos(math.pi * min(moment.share, 1.0)))
        keep = moment.kept(1.0) if moment.step % self.every == 0 and factor > 0.05 else moment.masks.keep
        return Masks(keep, flow={name: np.where(mask > 0.5, 1.0, factor) for name, mask in keep.items()})


@dataclass(frozen=True, slots=True)
class MaskSparsity:
    """Choose at `after`, press only what is to go towards zero by an L1 penalty, silence it in the end (Jiang et al. 2022)."""

    after: int = 0
    strength: float = 1e-3

    def __call__(self, moment: Moment, /) -> Masks:
        if moment.step == self.after:
            keep = moment.kept(1.0)
            return Masks(penalty={name: np.where(mask < 0.5, self.strength, 0.0) for name, mask in keep.items()}, memory=keep)
        if moment.step >= moment.steps:
            return Masks(moment.masks.memory)
        return moment.masks


def hard(keep: PerAxis) -> Masks:
    """Silenced, and cut off from learning."""
    return Masks(keep, flow=keep)


def _and(before: PerAxis, after: PerAxis) -> PerAxis:
    return {name: mask * before[name] if name in before else mask for name, mask in after.items()}


def _saturating(share: float, rate: float) -> float:
    """(1 - exp(-rate * share)) / (1 - exp(-rate))."""
    return (1 - math.exp(-rate * min(max(share, 0.0), 1.0))) / (1 - math.exp(-rate))


def at_least_one(schedule: str, **numbers: int) -> None:
    """Raises OptionError for a number below 1, naming the schedule and the option."""
    for name, number in numbers.items():
        if number < 1:
            raise OptionError(f"schedule {schedule}: {name} must be at least 1, not {number}")
