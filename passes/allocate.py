"""Allocation: choose the size of every axis so that the most saliency is retained within a latency budget, with a certificate.

    solve(problem, budget)   the best plan for one budget, to a proved gap
    front(problem)           the whole Pareto front, with a bound for every budget
    evaluate(problem, sizes) what a given plan (a uniform one, say) retains and costs
    judge(problem, sizes, budget)  the same with the gap to the bound

The relaxation by one price per limit gives the bound, exact elimination its plans, local search the plan between its breakpoints.
Where a gap remains, states that provably cannot better the plan are dropped, and HiGHS settles the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from billhook.ir.errors import AxisError, BudgetError, OptionError

from .allocation_eliminate import Elimination
from .allocation_front import Front, Point, front, unreachable
from .allocation_lagrange import Bound, Dual, solve_dual
from .allocation_milp import solve_milp
from .allocation_model import Model, build_model
from .allocation_problem import AnyFactor, Factor, Floats, Ints, Problem, Resource, SumFactor, Variable, restrict
from .allocation_search import Swaps, fill
from .allocation_solution import Marginal, Solution, Step, describe, relative_gap

__all__ = [
    "Bound",
    "Factor",
    "Front",
    "Marginal",
    "Point",
    "Problem",
    "Resource",
    "Solution",
    "Step",
    "SumFactor",
    "Totals",
    "Variable",
    "evaluate",
    "front",
    "judge",
    "solve",
]

_REDUCTIONS = 4  # rounds of dropping states before HiGHS takes over


@dataclass(frozen=True, slots=True)
class Totals:
    """What a plan retains and costs; allowed: does it keep the side constraints (but not necessarily the budgets)?"""

    value: float
    seconds: float
    resources: Mapping[str, float]
    allowed: bool


def evaluate(problem: Problem, sizes: Mapping[str, int]) -> Totals:
    """Totals of a plan that names a candidate size for every axis. Raises AxisError for a size that is no candidate."""
    model = build_model(problem)
    totals, allowed = model.totals(_choice(problem, model, sizes)[None])
    resources = {n: float(t) for n, t in zip(model.channels[2:], totals[0, 2:], strict=True)}
    return Totals(float(totals[0, 0]), float(totals[0, 1]), resources, bool(allowed[0]))


def judge(problem: Problem, sizes: Mapping[str, int], budget: float) -> Solution:
    """A plan that came from elsewhere, with the gap to the bound of the relaxation at `budget` seconds. AxisError as in `evaluate`."""
    model = build_model(problem)
    dual = solve_dual(Elimination(model), np.array([budget, *model.limits]))
    return describe(model, _choice(problem, model, sizes), budget, dual.prices, dual.bound)


def _choice(problem: Problem, model: Model, sizes: Mapping[str, int]) -> Ints:
    """State of every decision for sizes of all axes."""
    for name, variable in problem.variables.items():
        if name not in sizes or sizes[name] not in variable.sizes:
            raise AxisError(f"axis {name}: size {sizes.get(name)} is not one of its candidates {variable.sizes}")
    choice: list[int] = []
    for names, candidates in zip(model.names, model.sizes, strict=True):
        wanted = {sizes[n] for n in names}
        if len(wanted) > 1 or not wanted <= set(candidates):
            raise AxisError(f"axes {', '.join(names)}: sizes {sorted(wanted)} break a floor or differ; choose one of {candidates}")
        choice.append(candidates.index(wanted.pop()))
    return np.array(choice, dtype=np.intp)


def solve(problem: Problem, budget: float, gap: float = 1e-3, time_limit: float = 30.0) -> Solution:
    """The best plan with at most `budget` seconds, within all other limits.

    gap: relative distance to the proved bound at which to stop (below 1e-5, HiGHS's tolerances show). time_limit: seconds for HiGHS,
    which runs only where the relaxation leaves more than `gap`; the solution states the gap that was reached. Raises BudgetError,
    with the smallest reachable latency, if no plan meets the budget, and OptionError if the axes are coupled too densely for exact
    elimination. Deterministic unless HiGHS runs into its time limit.
    """
    if np.isnan(budget):
        raise OptionError("the budget is not a number; give seconds")
    model = build_model(problem)
    limits = np.array([budget, *model.limits])
    elimination = Elimination(model)
    dual = solve_dual(elimination, limits)
    if not np.isfinite(dual.bound):
        raise BudgetError(_infeasible(problem, budget, gap, time_limit))
    swaps = Swaps(model)
    choice = fill(swaps, dual.choices, limits, dual.prices, _goal(dual.bound, gap))
    bound = dual.bound
    if relative_gap(_value(model, choice), bound) > gap:
        choice, bound = _close(problem, model, elimination, dual, choice, limits, gap, time_limit)
    if choice is None:
        if np.isfinite(bound):
            limit = f"{budget * 1e3:.6g} ms and the other limits"
            raise BudgetError(f"no plan within {limit} was found in {time_limit:g} s; allow more time or relax a limit")
        raise BudgetError(_infeasible(problem, budget, gap, time_limit))
    return describe(model, choice, budget, dual.prices, bound)


def _goal(bound: float, gap: float) -> float:
    """Value at which the local search may stop: a tenth of the gap, as further swaps cost little."""
    return bound - 0.1 * gap * abs(bound)


def _value(model: Model, choice: Ints | None) -> float:
    return -np.inf if choice is None else float(model.totals(choice[None])[0][0, 0])


def _close(
    problem: Problem, model: Model, elimination: Elimination, dual: Dual, choice: Ints | None, limits: Floats, gap: float, time_limit: float
) -> tuple[Ints | None, float]:
    """Close the gap: drop states whose bound shows that they cannot better the plan by more than the gap, tighten, repeat, then HiGHS.

    Returns the best plan and a bound for the whole problem: the largest bound of anything that was dropped or remains.
    """
    kept = [np.arange(n) for n in model.states[: model.decisions]]
    small, dropped = model, -np.inf
    for _ in range(_REDUCTIONS):
        value = _value(model, choice)
        threshold = value + gap * abs(value) if np.isfinite(value) else -np.inf
        if dual.bound <= threshold:
            return choice, max(dropped, dual.bound)
        worth = dual.prices @ np.where(dual.prices > 0, limits, 0.0)  # of the limits; a price of 0 times no limit is 0
        tops = [t + worth for t in elimination.marginals(np.concatenate([[1.0], -dual.prices]))]
        keep = [t > threshold for t in tops]
        if all(k.all() for k in keep):
            break
        dropped = max(dropped, *(float(t[~k].max(initial=-np.inf)) for t, k in zip(tops, keep, strict=True)))
        kept = [old[k] for old, k in zip(kept, keep, strict=True)]
        small = _restricted(problem, model, kept)
        elimination = Elimination(small)
        dual = solve_dual(elimination, limits)
        if not np.isfinite(dual.bound):
            return choice, max(dropped, value)
        found = fill(Swaps(small), dual.choices, limits, dual.prices, _goal(dual.bound, gap))
        choice = _better(model, choice, found, kept)
    result = solve_milp(small, limits, 0.5 * gap, time_limit)
    if result.choice is not None:
        choice = _better(model, choice, fill(Swaps(small), result.choice[None], limits, dual.prices, np.inf), kept)
    return choice, max(dropped, min(dual.bound, result.bound), _value(model, choice))


def _restricted(problem: Problem, model: Model, kept: list[Ints]) -> Model:
    """The model with only the states `kept` of each decision."""
    sizes = [np.array(candidates)[k] for candidates, k in zip(model.sizes, kept, strict=True)]
    rows = {n: np.searchsorted(problem.variables[n].sizes, s) for names, s in zip(model.names, sizes, strict=True) for n in names}
    return build_model(restrict(problem, rows))


def _better(model: Model, choice: Ints | None, found: Ints | None, kept: list[Ints]) -> Ints | None:
    """The better of a plan and one that is given in states of the restricted model."""
    if found is None:
        return choice
    candidate = np.array([k[s] for k, s in zip(kept, found, strict=True)], dtype=np.intp)
    return candidate if _value(model, candidate) > _value(model, choice) else choice


def _infeasible(problem: Problem, budget: float, gap: float, time_limit: float) -> str:
    """Why no plan meets the budget: the smallest reachable latency, or the limit that rules out every plan."""
    if not np.isfinite(budget):
        names = ", ".join(r.name for r in problem.resources) or "none"
        return f"no plan keeps the side constraints and the limits of the resources ({names}); relax one of them"
    still = {n: Variable(v.sizes, np.zeros(len(v.sizes))) for n, v in problem.variables.items()}
    negated = tuple(_negated(f) for f in problem.factors)
    hard = tuple(_only_forbidding(f) for f in problem.value_factors)
    fastest = solve(replace(problem, variables=still, value_factors=negated + hard), np.inf, gap, time_limit)
    return unreachable(budget, fastest.seconds)


def _negated(factor: AnyFactor) -> AnyFactor:
    return replace(factor, table=-factor.table)


def _only_forbidding(factor: AnyFactor) -> AnyFactor:
    return replace(factor, table=np.where(np.isfinite(factor.table), 0.0, -np.inf))
