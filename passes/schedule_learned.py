"""Schedules that learn what to keep, against a price on latency: gates (PaS), thresholds (LAPP), primal-dual (UVC).

The loss's derivative by a mask is the sum of weight * gradient over what the mask acts on, so gates need no place in the network. The price
of an index is the slope of the latency surface at the present sizes.
"""

from dataclasses import dataclass

import numpy as np

from .saliency import Floats
from .schedule import Masks, Moment, PerAxis, sizes_of

_PRICE = " price"  # no axis has a space in its name


@dataclass(frozen=True, slots=True)
class Gates:
    """A learnable gate per index, binarised at one half with straight-through gradients (PaS, Li et al. 2022).

    g <- g - rate * (dloss/dmask + price * dlatency/dsize / goal) while the network is slower than its goal; then without the price.
    The last `cool` of the training runs with the masks of an allocation by the gates, which meets the budget exactly.
    """

    rate: float = 0.1
    price: float = 1.0
    cool: float = 0.3

    def __call__(self, moment: Moment, /) -> Masks:
        if moment.share >= 1 - self.cool:
            return _cooled(moment, {n: g for n, g in moment.masks.memory.items() if n != _PRICE})
        gates = moment.masks.memory or {name: np.ones(len(p)) for name, p in moment.pull.items()}
        slopes, over = _prices(moment, gates)
        price = self.price if over > 0 else 0.0
        moved = {n: np.clip(g - self.rate * (moment.pull[n] + price * slopes[n]), 0.0, 1.0) for n, g in gates.items()}
        return Masks(_alive(moved, 0.5), memory=moved)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A learnable threshold per axis on the scores, as a share of the axis' mean score (LAPP, Zhang et al. 2023).

    An index is kept where its score is above the threshold; the threshold's gradient takes the step as a sigmoid of width `softness`.
    """

    rate: float = 0.1
    price: float = 1.0
    softness: float = 0.2
    cool: float = 0.3

    def __call__(self, moment: Moment, /) -> Masks:
        scores = moment.scores()
        ratios = {n: scores[n] / max(float(scores[n].mean()), 1e-300) for n in moment.pull}
        if moment.share >= 1 - self.cool:
            return _cooled(moment, ratios)
        thresholds = moment.masks.memory or {n: np.zeros(1) for n in ratios}
        gates = {n: r - thresholds[n] + 0.5 for n, r in ratios.items()}
        slopes, over = _prices(moment, gates)
        price = self.price if over > 0 else 0.0
        moved: dict[str, Floats] = {}
        for n, r in ratios.items():
            soft = 1 / (1 + np.exp(-np.clip((r - thresholds[n]) / self.softness, -30, 30)))
            by_mask = moment.pull[n] + price * slopes[n]
            moved[n] = np.maximum(thresholds[n] + self.rate * float((by_mask * soft * (1 - soft) / self.softness).sum()), 0.0)
        return Masks(_alive({n: r - moved[n] + 0.5 for n, r in ratios.items()}, 0.5), memory=moved)


@dataclass(frozen=True, slots=True)
class PrimalDual:
    """Gates with a price that learns, too (UVC, Yu et al. 2022): the dual rises while the network is over its budget and falls below it.

    price <- max(0, price + dual_rate * (latency / goal - 1)).
    """

    rate: float = 0.1
    dual_rate: float = 0.5
    cool: float = 0.3

    def __call__(self, moment: Moment, /) -> Masks:
        gates = {n: g for n, g in moment.masks.memory.items() if n != _PRICE}
        if moment.share >= 1 - self.cool:
            return _cooled(moment, gates)
        gates = gates or {name: np.ones(len(p)) for name, p in moment.pull.items()}
        slopes, over = _prices(moment, gates)
        price = max(0.0, float(moment.masks.memory.get(_PRICE, np.zeros(1))[0]) + self.dual_rate * over)
        moved = {n: np.clip(g - self.rate * (moment.pull[n] + price * slopes[n]), 0.0, 1.0) for n, g in gates.items()}
        return Masks(_alive(moved, 0.5), memory={**moved, _PRICE: np.array([price])})


def _prices(moment: Moment, gates: PerAxis) -> tuple[dict[str, float], float]:
    """For every axis the share of the goal that one more index costs, and by how much the present sizes are over the goal."""
    sizes = {n: max(1, s) for n, s in sizes_of(gates).items()}
    budget = moment.budget
    return {n: s / budget.goal for n, s in budget.slopes(sizes).items()}, budget.seconds(sizes) / budget.goal - 1


def _alive(gates: PerAxis, least: float) -> PerAxis:
    """Masks by a threshold; the strongest index of an axis always stays."""
    return {n: ((g > least) | (np.arange(len(g)) == int(np.argmax(g)))).astype(np.float64) for n, g in gates.items()}


def _cooled(moment: Moment, gates: PerAxis) -> Masks:
    """Frozen masks that meet the budget: those of the step before if they are frozen, else an allocation by the gates."""
    if moment.masks.flow:
        return moment.masks
    keep = moment.budget.kept(gates, moment.budget.goal) if gates else moment.kept(1.0)
    return Masks(keep, flow=keep)
