"""Answers of the allocator, with their certificate and what explains them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .allocation_model import Model
from .allocation_problem import Floats, Ints
from .allocation_search import Swaps


@dataclass(frozen=True, slots=True)
class Step:
    """What changes if one axis (with its uniform group) takes another size: differences to the plan."""

    size: int
    seconds: float
    value: float


@dataclass(frozen=True, slots=True)
class Marginal:
    """The steps to the next smaller and next larger candidate; None where there is none or the side constraints forbid it."""

    smaller: Step | None
    larger: Step | None


@dataclass(frozen=True, slots=True)
class Solution:
    """A plan within the budget, and the proof of how good it is.

    bound: no plan within the limits retains more; gap = (bound - value) / max(|bound|, |value|).
    prices: value that one more unit of a binding limit ("seconds" or a resource) would buy, by the relaxation; binding: its names.
    """

    sizes: Mapping[str, int]
    value: float
    seconds: float
    budget: float
    bound: float
    gap: float
    resources: Mapping[str, float]
    prices: Mapping[str, float]
    marginals: Mapping[str, Marginal]

    @property
    def binding(self) -> tuple[str, ...]:
        return tuple(self.prices)

    def __str__(self) -> str:
        tight = f", binding: {', '.join(self.binding)}" if self.binding else ", no limit binds"
        time = f"{self.seconds * 1e3:.4f} of {self.budget * 1e3:.4f} ms"
        return f"value {self.value:.6g} in {time}, proved within {self.gap:.4%} of the optimum{tight}"


def relative_gap(value: float, bound: float) -> float:
    """(bound - value) relative to the larger of the two; infinite without a plan."""
    if not np.isfinite(value):
        return np.inf
    largest = max(abs(value), abs(bound))
    return max(bound - value, 0.0) / largest if largest > 0 else 0.0


def describe(model: Model, choice: Ints, budget: float, prices: Floats, bound: float) -> Solution:
    """The solution for one plan [decisions] and the prices of the cost channels."""
    totals, _ = model.totals(choice[None])
    value, seconds = float(totals[0, 0]), float(totals[0, 1])
    bound = max(bound, value)
    felt = prices * np.abs(totals[0, 1:]) > 1e-9 * abs(value)  # below that a price is rounding
    return Solution(
        sizes=model.chosen(choice),
        value=value,
        seconds=seconds,
        budget=budget,
        bound=bound,
        gap=relative_gap(value, bound),
        resources={n: float(t) for n, t in zip(model.channels[2:], totals[0, 2:], strict=True)},
        prices={n: float(p) for n, p in zip(model.channels[1:], np.where(felt, prices, 0.0), strict=True) if p > 0},
        marginals=_marginals(model, choice, totals[0]),
    )


def _marginals(model: Model, choice: Ints, totals: Floats) -> dict[str, Marginal]:
    swaps = Swaps(model)
    after, allowed = swaps.evaluate(choice[None])
    first = np.cumsum([0, *model.states[: model.decisions]])

    def step(decision: int, state: int) -> Step | None:
        number = first[decision] + state
        if not 0 <= state < model.states[decision] or not allowed[0, number]:
            return None
        return Step(model.sizes[decision][state], float(after[0, number, 1] - totals[1]), float(after[0, number, 0] - totals[0]))

    return {n: Marginal(step(d, s - 1), step(d, s + 1)) for d, s in enumerate(choice.tolist()) for n in model.names[d]}
