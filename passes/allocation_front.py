"""The Pareto front of value against seconds over all budgets, with the bound that limits it from above."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from billhook.ir.errors import BudgetError, OptionError

from .allocation_eliminate import Elimination
from .allocation_lagrange import Bound, by_cases, envelope, solve_dual
from .allocation_model import Model, build_model
from .allocation_problem import Bools, Floats, Ints, Problem
from .allocation_search import Swaps, fill
from .allocation_solution import Solution, describe

_CHUNK = 128  # plans whose swaps are evaluated at once
_ROUNDS = 4  # of swaps between the breakpoints
_REACH = 8  # points on either side of a gap whose swaps may fill it
_PIECES = 64  # points that may be kept between two breakpoints
_SEARCHES = 256  # budgets that may be searched one by one, after that
_ENOUGH = 0.3  # of the gap: where such a search may stop
_SHARE_OF_BOUND = 0.1  # of the gap that the bound may give away
_GRID = 33  # budgets tried where further resources leave no envelope in one multiplier


@dataclass(frozen=True, slots=True)
class Point:
    """A plan on the front."""

    seconds: float
    value: float
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """Plans by ascending seconds and value, none dominated. `bound(budgets)` is certified for every budget."""

    seconds: Floats  # [points]
    value: Floats  # [points]
    bound: Bound
    _model: Model = field(repr=False)
    _choices: Ints = field(repr=False)  # [points, decisions]

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def points(self) -> tuple[Point, ...]:
        """All plans, spelled out."""
        pairs = zip(self.seconds.tolist(), self.value.tolist(), self._choices, strict=True)
        return tuple(Point(s, v, self._model.chosen(c)) for s, v, c in pairs)

    def at(self, budget: float) -> Solution:
        """The best point within the budget, with its gap. Raises BudgetError below the fastest point."""
        if np.isnan(budget):
            raise OptionError("the budget is not a number; give seconds")
        point = int(np.searchsorted(self.seconds, budget, side="right")) - 1
        if point < 0:
            raise BudgetError(unreachable(budget, float(self.seconds[0])))
        prices = np.zeros(len(self._model.channels) - 1)
        prices[0] = self.bound.slope(np.array([budget]))[0]
        return describe(self._model, self._choices[point], budget, prices, float(self.bound(np.array([budget]))[0]))


def unreachable(budget: float, smallest: float) -> str:
    """The message for a budget that no plan meets."""
    return (
        f"no plan meets a budget of {budget * 1e3:.6g} ms: the smallest reachable latency is {smallest * 1e3:.6g} ms; "
        "raise the budget, lower the floors or offer smaller sizes"
    )


def front(problem: Problem, gap: float = 1e-3) -> Front:
    """The whole front in one solve: the envelope, and local search wherever it leaves more than `gap` to the bound.

    With summed resources, whose limits hold at every point, it consists of solutions for a grid of budgets and swaps between them.
    Raises BudgetError where the side constraints and limits leave no plan.
    """
    model = build_model(problem)
    elimination = Elimination(model)
    if len(model.limits):
        choices, bound = _grid(model, elimination)
    else:
        hull = envelope(elimination, _SHARE_OF_BOUND * gap)
        choices, bound = hull.choices, hull.bound
    if not len(choices):
        raise BudgetError("no plan keeps the side constraints and the limits of the resources; relax one of them")
    swaps = Swaps(model)
    choices, _ = _thicken(swaps, choices, bound, gap)
    choices, _ = _search(swaps, choices, bound, gap)
    choices, totals = _thicken(swaps, choices, bound, gap)
    bound = _tightened(elimination, bound, totals, gap)
    return Front(totals[:, 1], totals[:, 0], bound, model, choices)


def _grid(model: Model, elimination: Elimination) -> tuple[Ints, Bound]:
    """Plans and the bound from the relaxation at evenly spaced budgets between the fastest and the most valuable plan."""
    swaps = Swaps(model)
    found: list[Ints] = []
    lines: list[tuple[float, float]] = []
    weights = np.zeros((2, len(model.channels)))
    weights[0, 1], weights[1, 0] = -1.0, 1.0
    corners, maxima = elimination.maximise(weights)
    ends = model.totals(corners)[0][:, 1]
    for share in range(_GRID if np.isfinite(maxima).all() else 0):
        budget = float(ends[0] + (ends[1] - ends[0]) * share / (_GRID - 1))
        limits = np.array([budget, *model.limits])
        dual = solve_dual(elimination, limits)
        if not np.isfinite(dual.bound):
            continue
        price = float(dual.prices[0])
        lines.append((dual.bound - price * budget, price))
        plan = fill(swaps, dual.choices, limits, dual.prices, dual.bound)
        found += [] if plan is None else [plan]
    return np.array(found, dtype=np.intp).reshape(-1, model.decisions), Bound.of(lines)


def _thicken(swaps: Swaps, choices: Ints, bound: Bound, gap: float) -> tuple[Ints, Floats]:
    """Add the swaps that better the front where it is further than `gap` from the bound, round by round from the new points."""
    model = swaps.model
    choices, totals = _pareto(choices, model.totals(choices)[0])
    shares = np.arange(_PIECES)[:, None] / _PIECES
    pieces: Floats = np.unique(totals[:-1, 1] + shares * np.diff(totals[:, 1]))
    done: set[bytes] = set()
    for _ in range(_ROUNDS):
        near = np.convolve(_wide(totals, bound, gap), np.ones(2 * _REACH + 1))[_REACH : _REACH + len(choices)] > 0
        fresh = np.array([c for c in choices[near] if c.tobytes() not in done], dtype=np.intp).reshape(-1, model.decisions)
        done.update(c.tobytes() for c in fresh)
        for start in range(0, len(fresh), _CHUNK):
            base = fresh[start : start + _CHUNK]
            after, fine = swaps.evaluate(base)
            fine &= (after[..., 2:] <= model.limits).all(axis=-1)
            enough = np.where(_wide(totals, bound, gap), totals[:, 0], np.inf)
            place = np.searchsorted(totals[:, 1], after[..., 1], side="right") - 1
            plans, numbers = np.nonzero(fine & (after[..., 0] > np.where(place >= 0, enough[place], -np.inf)))
            best = _best_of_each(pieces, after[plans, numbers])
            added = swaps.apply(base, plans[best], numbers[best])
            choices, totals = _pareto(np.concatenate([choices, added]), np.concatenate([totals, model.totals(added)[0]]))
    return choices, totals


def _tightened(elimination: Elimination, bound: Bound, totals: Floats, gap: float) -> Bound:
    """The bound by cases where the front is still further than `gap` from it; where further resources are limited, as it is."""
    budgets = np.linspace(totals[0, 1], totals[-1, 1], _SEARCHES + 1)
    values = totals[np.searchsorted(totals[:, 1], budgets, side="right") - 1, 0]
    bounds = bound(budgets)
    wide = budgets[bounds - values > gap * np.abs(bounds)]
    return by_cases(elimination, bound, wide) if len(wide) and not len(elimination.model.limits) else bound


def _search(swaps: Swaps, choices: Ints, bound: Bound, gap: float) -> tuple[Ints, Floats]:
    """At evenly spaced budgets where the front is still further than `gap` from the bound, the beam search of a single budget."""
    model = swaps.model
    choices, totals = _pareto(choices, model.totals(choices)[0])
    hull, hull_totals = choices, totals
    for budget in np.linspace(totals[0, 1], totals[-1, 1], _SEARCHES + 1)[1:].tolist():
        place = int(np.searchsorted(totals[:, 1], budget, side="right")) - 1
        top = float(bound(np.array([budget]))[0])
        if top - totals[place, 0] <= gap * abs(top):
            continue
        prices = np.zeros(len(model.channels) - 1)
        prices[0] = bound.slope(np.array([budget]))[0]
        middle = int(np.searchsorted(hull_totals[:, 1], budget))
        starts = np.concatenate([choices[max(place - _REACH, 0) : place + 1 + _REACH], hull[max(middle - _REACH, 0) : middle + _REACH]])
        limits = np.array([budget, *model.limits])
        found = fill(swaps, np.unique(starts, axis=0), limits, prices, top - _ENOUGH * gap * abs(top))
        if found is not None:
            choices, totals = _pareto(np.concatenate([choices, found[None]]), np.concatenate([totals, model.totals(found[None])[0]]))
    return choices, totals


def _wide(totals: Floats, bound: Bound, gap: float) -> Bools:
    """Which points are further than `gap` from the bound where it is worst: just before the next point's seconds."""
    bounds = bound(np.append(totals[1:, 1], totals[-1, 1]))
    return bounds - totals[:, 0] > gap * np.abs(bounds)


def _best_of_each(pieces: Floats, totals: Floats) -> Ints:
    """Index of the most valuable row in each of the pieces that the seconds are divided into."""
    seconds: Floats = totals[:, 1]
    labels = np.searchsorted(pieces, seconds)
    order = np.lexsort((-totals[:, 0], labels))
    return order[np.unique(labels[order], return_index=True)[1]]


def _pareto(plans: Ints, totals: Floats) -> tuple[Ints, Floats]:
    """The rows that no other row dominates, by ascending seconds (channel 1) and value (channel 0)."""
    order = np.lexsort((-totals[:, 0], totals[:, 1]))
    values = totals[order, 0]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(values)[:-1]])
    order = order[values > best_before]
    return plans[order], totals[order]
