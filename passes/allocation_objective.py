"""Other objectives over the same problem: the least latency, or the least memory, that keeps enough.

    most value within a latency or a memory      solve, solve_within_memory
    least latency that retains a floor           least_latency
    least memory that retains a floor            least_memory

The objectives of AAP (adaptive activation-based pruning, 2022), which finds its level by search; here the first is the same exact
solve with value and seconds in each other's place, and the second a bisection whose every step is one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from billhook.ir.errors import BudgetError, OptionError

from .allocate import Solution, evaluate, judge, solve
from .allocation_memory import MemoryLimit, solve_within_memory
from .allocation_problem import AnyFactor, Factor, Problem, Variable

SLACK = 1e-9  # of the floor: sums in another order differ by less


@dataclass(frozen=True, slots=True)
class Least:
    """A plan that keeps a floor, and the proof of how little that takes.

    solution: as `judge` sees it at its own latency. amount: what it takes of the thing that was minimised (seconds or bytes); bound: no
    plan that keeps the floor takes less; gap = (amount - bound) / amount. whole: the value of the largest sizes.
    """

    solution: Solution
    floor: float
    amount: float
    bound: float
    whole: float

    @property
    def share(self) -> float:
        """Of what the largest sizes retain."""
        return self.solution.value / self.whole if self.whole else 1.0

    @property
    def gap(self) -> float:
        return max(self.amount - self.bound, 0.0) / self.amount if self.amount > 0 else 0.0


def floor_of(problem: Problem, share: float) -> float:
    """The value that is this share of what the largest sizes retain. Raises OptionError."""
    if not 0 < share <= 1:
        raise OptionError(f"a share of {share:g} cannot be retained; give one greater than 0 and at most 1")
    return share * _whole(problem)


def least_latency(problem: Problem, floor: float, gap: float = 1e-3, time_limit: float = 30.0) -> Least:
    """The fastest plan that retains at least `floor`, in the values' unit, within the resources' limits.

    gap, time_limit: as of `solve`. Raises BudgetError, with the most that can be retained, where no plan does.
    """
    floor -= SLACK * abs(floor)
    most = solve(problem, np.inf, gap, time_limit)
    if most.bound < floor:
        raise BudgetError(_too_high(floor, most.value))
    try:
        found = solve(_swapped(problem), -floor, gap, time_limit)
    except BudgetError as error:  # within the gap of the most
        raise BudgetError(_too_high(floor, most.value)) from error
    seconds = evaluate(problem, found.sizes).seconds
    return Least(judge(problem, found.sizes, seconds), floor, seconds, problem.constant - found.bound, _whole(problem))


def least_memory(
    problem: Problem,
    floor: float,
    budget: float,
    limit: MemoryLimit,
    solve: Callable[[Problem, float], Solution] = solve,
    close: float = 1e-3,
) -> Least:
    """The plan of smallest peak memory that retains at least `floor` within `budget` seconds; limit: whose memory, and the most allowed.

    Bisects the limit down to a relative `close`. What the bound says, it says up to the gap of `solve`. Raises BudgetError where no plan
    within the limit does.
    """
    floor -= SLACK * abs(floor)
    best, moments = _within(problem, budget, limit, solve, ())
    if best is None or best.value < floor:
        raise BudgetError(_too_high(floor, None if best is None else best.value))
    low, high = 0.0, _peak(limit, best.sizes)
    while high - low > close * high:
        cap = (low + high) / 2
        found, moments = _within(problem, budget, replace(limit, bytes=cap), solve, moments)
        if found is not None and found.value >= floor:
            best, high = found, _peak(limit, found.sizes)
        else:
            low = cap
    return Least(judge(problem, best.sizes, best.seconds), floor, high, low, _whole(problem))


def _whole(problem: Problem) -> float:
    """What the axes retain at their largest sizes, whether or not the side constraints allow all of them together."""
    return sum(float(v.values[-1]) for v in problem.variables.values())


def _within(
    problem: Problem, budget: float, limit: MemoryLimit, solve: Callable[[Problem, float], Solution], moments: tuple[str, ...]
) -> tuple[Solution | None, tuple[str, ...]]:
    """What is best within the limit, if anything is."""
    try:
        return solve_within_memory(problem, budget, limit, solve, moments)
    except BudgetError:
        return None, moments


def _peak(limit: MemoryLimit, sizes: Mapping[str, int]) -> float:
    return float(max(limit.peaks(sizes).values()))


def _swapped(problem: Problem) -> Problem:
    """Value and seconds in each other's place, negated: the most of -seconds with at most -floor of -value."""
    still = {n: Variable(v.sizes, np.zeros(len(v.sizes))) for n, v in problem.variables.items()}
    values: tuple[AnyFactor, ...] = tuple(Factor(f"value of {n}", (n,), -v.values) for n, v in problem.variables.items())
    return replace(
        problem,
        variables=still,
        factors=values + tuple(replace(f, table=-f.table) for f in problem.value_factors),
        value_factors=tuple(replace(f, table=-f.table) for f in problem.factors),
        constant=0.0,
    )


def _too_high(floor: float, most: float | None) -> str:
    reached = "no plan is within the limits" if most is None else f"the most within the limits is {most:.6g}"
    return f"no plan retains {floor:.6g}: {reached}; lower the floor, or relax a limit"
