"""Lagrangian relaxation of the budgets: certified upper bounds, and the whole concave envelope of the Pareto front.

With a price per unit of every budget the problem falls apart into an exact elimination. The best prices come from column generation
(Dantzig and Wolfe 1960), which for a single budget is the walk along the envelope to the segment above that budget (Everett 1963).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from .allocation_eliminate import Elimination
from .allocation_problem import Floats, Ints

_optimize: Any = optimize  # scipy has no types
_EPS = 1e-9  # relative to the range of each channel


@dataclass(frozen=True, slots=True, eq=False)
class Dual:
    """Prices (value per unit) of the cost channels, the upper bound that they prove, and the plans met on the way.

    bound is -inf, and prices are zero, where even fractional mixtures of plans exceed the limits.
    """

    prices: Floats
    bound: float
    choices: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """A bound by cases: some decision is in one of its states, and each state has lines of its own.

    With decision d in state s, value <= tops[k, i] + slopes[k] * budget for all k, where i counts the states of all decisions, from
    first[d] on. The best plan is in some state of every decision: value <= the least over d of the largest over s. A mixture of two plans
    that differ in d, which the envelope allows, is none of the cases.
    """

    slopes: Floats  # [lines]
    tops: Floats  # [lines, states of all decisions]
    first: Ints  # [decisions]

    def __call__(self, budgets: Floats) -> Floats:
        """The bound at each budget."""
        found = [np.maximum.reduceat((self.tops + self.slopes[:, None] * b).min(axis=0), self.first).min() for b in budgets.tolist()]
        return np.array(found, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """The least of lines: value <= intercepts[i] + slopes[i] * budget, line i least between breaks[i - 1] and breaks[i].

    cases: a further bound, where there is one.
    """

    intercepts: Floats
    slopes: Floats
    breaks: Floats
    cases: Cases | None = None

    @staticmethod
    def of(lines: list[tuple[float, float]]) -> "Bound":
        """From (intercept, slope) pairs, of which those are kept that are least somewhere."""
        kept: list[tuple[float, float]] = []
        breaks: list[float] = []
        for intercept, slope in sorted(lines, key=lambda line: (-line[1], line[0])):
            if kept and slope == kept[-1][1]:
                continue
            while kept:
                at = (intercept - kept[-1][0]) / (kept[-1][1] - slope)
                if not breaks or at > breaks[-1]:
                    breaks.append(at)
                    break
                kept.pop()
                breaks.pop()
            kept.append((intercept, slope))
        intercepts, slopes = np.array(kept, dtype=np.float64).reshape(-1, 2).T
        return Bound(intercepts, slopes, np.array(breaks, dtype=np.float64))

    def slope(self, budgets: Floats) -> Floats:
        """What one more second buys at each budget."""
        return self.slopes[np.searchsorted(self.breaks, budgets)]

    def __call__(self, budgets: Floats) -> Floats:
        """The bound at each budget."""
        line = np.searchsorted(self.breaks, budgets)
        lines = self.intercepts[line] + self.slopes[line] * budgets
        return lines if self.cases is None else np.minimum(lines, self.cases(budgets))


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """The plans on the concave envelope [n, decisions], by ascending seconds, and the bound above all plans."""

    choices: Ints
    totals: Floats  # [n, channels]
    bound: Bound


def solve_dual(elimination: Elimination, limits: Floats) -> Dual:
    """Best prices for the limits [cost channels], infinite ones included (their price is zero)."""
    channels = len(limits)
    bounded = np.flatnonzero(np.isfinite(limits))
    starts = np.zeros((1 + len(bounded), 1 + channels))
    starts[0, 0] = 1.0
    starts[1 + np.arange(len(bounded)), 1 + bounded] = -1.0
    choices, maxima = elimination.maximise(starts)
    if not np.isfinite(maxima[0]):
        return Dual(np.zeros(channels), -np.inf, choices[:0])
    totals, _ = elimination.model.totals(choices)
    if (totals[0, 1:] <= limits).all():
        return Dual(np.zeros(channels), float(maxima[0]), choices[:1])
    if (totals[1 + np.arange(len(bounded)), 1 + bounded] > limits[bounded]).any():
        return Dual(np.zeros(channels), -np.inf, choices)
    choices, _, violation = _generate(elimination, choices, limits, bounded, 0.0)
    if violation < -_EPS:
        return Dual(np.zeros(channels), -np.inf, choices)
    choices, prices, bound = _generate(elimination, choices, limits, bounded, 1.0)
    return Dual(prices, min(bound, float(maxima[0])), choices)


def _generate(elimination: Elimination, choices: Ints, limits: Floats, bounded: Ints, worth: float) -> tuple[Ints, Floats, float]:
    """Column generation: with worth 1 for the best value, with worth 0 for the least excess over the limits (as a negative value).

    Every round proves a bound by itself, so stopping early, as where HiGHS gives up on a master problem, only loosens it.
    """
    model = elimination.model
    totals, _ = model.totals(choices)
    scale = _scale(totals[:, 1 + bounded] - limits[bounded])
    unit = float(_scale(totals[:, :1])[0]) if worth else 1.0
    prices, bound = np.zeros(len(limits)), np.inf
    while True:
        costs = (totals[:, 1 + bounded] - limits[bounded]) / scale
        master = _master(worth * totals[:, 0] / unit, costs, elastic=worth == 0.0)
        if master is None:
            return choices, prices, bound
        reached, row_prices = master
        trial = np.zeros(len(limits))
        trial[bounded] = row_prices * unit / scale
        found, best = elimination.maximise(np.concatenate([[worth], -trial])[None])
        proved = float(best[0] + trial[bounded] @ limits[bounded])
        if proved < bound:
            bound, prices = proved, trial
        seen = (choices == found[0]).all(axis=1).any()
        if seen or bound - reached * unit <= _EPS * unit:
            return choices, prices, bound
        choices = np.concatenate([choices, found])
        totals = np.concatenate([totals, model.totals(found)[0]])


def _master(values: Floats, costs: Floats, elastic: bool) -> tuple[float, Floats] | None:
    """Best mixture of plans whose mean cost [plans, rows] is at most 0: its value (elastic: minus the total excess), prices of the rows.

    None if HiGHS could not solve it.
    """
    plans, rows = costs.shape
    excess = np.eye(rows) if elastic else np.zeros((rows, 0))
    result = _optimize.linprog(
        np.concatenate([-values, np.ones(excess.shape[1])]),
        A_ub=np.hstack([costs.T, -excess]),
        b_ub=np.zeros(rows),
        A_eq=np.concatenate([np.ones(plans), np.zeros(excess.shape[1])])[None],
        b_eq=[1.0],
        method="highs",
    )
    if result.status != 0:
        return None
    return -float(result.fun), np.maximum(-np.asarray(result.ineqlin.marginals, dtype=np.float64), 0.0)


def _scale(columns: Floats) -> Floats:
    """A unit for each column [rows, columns]: its range, or its size where it hardly varies."""
    size = np.abs(columns).max(axis=0)
    spread = np.ptp(columns, axis=0)
    return np.where(spread > _EPS * size, spread, np.where(size > 0, size, 1.0))


def envelope(elimination: Elimination, tolerance: float = 0.0) -> Envelope:
    """The breakpoints of value against seconds, by recursive splitting of segments; the other channels are left free.

    A segment is final when no plan lies above it by more than `tolerance` of its value, or than 1e-9 of the range: with 0 all breakpoints
    are found. The bound is proved in any case. Each level is one batched elimination.
    """
    model = elimination.model
    corners, maxima = elimination.maximise(np.array([_weights(model.constants, 0.0, 1.0), _weights(model.constants, 1.0, 0.0)]))
    if not np.isfinite(maxima).all():
        return Envelope(corners[:0], np.zeros((0, len(model.constants))), Bound.of([]))
    points = list(corners)
    totals = list(model.totals(corners)[0])
    value_unit = max(totals[1][0] - totals[0][0], 1e-300)
    time_unit = max(totals[1][1] - totals[0][1], 1e-300)
    lines = [(float(maxima[1]), 0.0)]
    segments = [(0, 1)] if totals[1][1] > totals[0][1] or totals[1][0] > totals[0][0] else []
    while segments:
        rises = np.array([[totals[b][1] - totals[a][1], totals[b][0] - totals[a][0]] for a, b in segments]) / (time_unit, value_unit)
        rises = np.maximum(rises, 0.0) / rises.sum(axis=1, keepdims=True)
        weights = np.array([_weights(model.constants, r[0] / value_unit, r[1] / time_unit) for r in rises])
        found, best = elimination.maximise(weights)
        found_totals, _ = model.totals(found)
        pending: list[tuple[int, int]] = []
        for (a, b), w, choice, total, top in zip(segments, weights, found, found_totals, best, strict=True):
            level = float(w @ totals[a])
            above = float(w @ total) - level
            if above > _EPS:
                points.append(choice)
                totals.append(total)
            if above > max(_EPS, tolerance * w[0] * abs(totals[a][0])):
                pending += [(a, len(points) - 1), (len(points) - 1, b)]
            elif w[0] * value_unit > _EPS:
                lines.append((max(float(top), level) / w[0], -w[1] / w[0]))
        segments = [(a, b) for a, b in pending if _rises(totals[a], totals[b])]
    table = np.array(totals)
    order = np.lexsort((-table[:, 0], table[:, 1]))
    order = order[np.concatenate([[True], np.diff(np.maximum.accumulate(table[order, 0])) > 0])]
    return Envelope(np.array(points)[order], table[order], Bound.of(lines))


def by_cases(elimination: Elimination, bound: Bound, budgets: Floats) -> Bound:
    """The bound with one by cases, from the prices at these budgets and two on either side."""
    near = np.searchsorted(bound.breaks, budgets)
    lines = np.unique(np.clip(near[:, None] + np.arange(-2, 3), 0, len(bound.slopes) - 1))
    constants = elimination.model.constants
    tops = [np.concatenate(elimination.marginals(_weights(constants, 1.0, s))) for s in bound.slopes[lines].tolist()]
    states = elimination.model.states[: elimination.model.decisions]
    first = np.cumsum([0, *states[:-1]])
    return replace(bound, cases=Cases(bound.slopes[lines], np.array(tops), first))


def _weights(constants: Floats, value: float, seconds: float) -> Floats:
    weights = np.zeros(len(constants))
    weights[0], weights[1] = value, -seconds
    return weights


def _rises(low: Floats, high: Floats) -> bool:
    return bool(high[0] > low[0] or high[1] > low[1])
