"""Other ways to solve, written down plainly: enumeration, dynamic programming over rounded latencies, merging of Pareto sets."""

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from billhook.passes.allocate import Factor, Problem, evaluate

Floats: TypeAlias = npt.NDArray[np.float64]
Choices: TypeAlias = Sequence[tuple[Floats, Floats]]  # per variable: values and seconds of its candidates


def separable(problem: Problem) -> tuple[Choices, float]:
    """The choices of a problem whose factors touch one variable each, and its constant. Raises ValueError for another one."""
    seconds = {n: np.zeros(len(v.sizes)) for n, v in problem.variables.items()}
    for factor in problem.factors:
        if not isinstance(factor, Factor) or len(factor.variables) != 1:
            raise ValueError(f"factor {factor.name} touches several variables")
        seconds[factor.variables[0]] += factor.table
    return [(problem.variables[n].values, s) for n, s in seconds.items()], problem.constant


def brute_force(problem: Problem, budget: float) -> float:
    """Value of the best of all plans within the budget; -inf if there is none."""
    best = -np.inf
    for sizes in product(*(v.sizes for v in problem.variables.values())):
        totals = evaluate(problem, dict(zip(problem.variables, sizes, strict=True)))
        if totals.allowed and totals.seconds <= budget:
            best = max(best, totals.value)
    return best


def dynamic_programming(choices: Choices, budget: float, bins: int) -> float:
    """Best value by the knapsack table over latencies that are rounded *up* to `bins` steps of the budget, so its plan is feasible."""
    best = np.full(bins + 1, -np.inf)
    best[0] = 0.0
    for values, seconds in choices:
        cost = np.ceil(seconds / budget * bins - 1e-9).astype(np.intp)
        after = np.full(bins + 1, -np.inf)
        for value, c in zip(values, cost, strict=True):
            if c <= bins:
                after[c:] = np.maximum(after[c:], best[: bins + 1 - c] + value)
        best = after
    return float(best.max())


def merge(choices: Choices, budget: float, most: int = 200_000) -> float:
    """Best value by merging Pareto sets one variable after the other (as SMCP does): exact. Raises MemoryError beyond `most` plans."""
    seconds, value = np.zeros(1), np.zeros(1)
    for values, costs in choices:
        if len(seconds) * len(costs) > 20 * most:
            raise MemoryError(f"{len(seconds)} undominated plans")
        all_seconds = (seconds[:, None] + costs[None, :]).ravel()
        all_values = (value[:, None] + values[None, :]).ravel()
        fits = all_seconds <= budget
        all_seconds, all_values = all_seconds[fits], all_values[fits]
        order = np.lexsort((-all_values, all_seconds))
        all_seconds, all_values = all_seconds[order], all_values[order]
        better = all_values > np.concatenate([[-np.inf], np.maximum.accumulate(all_values)[:-1]])
        seconds, value = all_seconds[better], all_values[better]
        if len(seconds) > most:
            raise MemoryError(f"{len(seconds)} undominated plans")
    return float(value.max()) if len(value) else -np.inf
