"""Floors of what is retained: the least latency and the least memory that keep one, against enumeration."""

import numpy as np
import pytest
from allocation_cases import brute_force, problems
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import forked

from billhook.ir.errors import BudgetError, OptionError
from billhook.passes.allocate import Problem, evaluate, solve
from billhook.passes.allocation_memory import MemoryLimit
from billhook.passes.allocation_objective import floor_of, least_latency, least_memory


@settings(max_examples=80, deadline=None)
@given(problems(), st.floats(0.0, 1.0))
def test_least_latency_equals_enumeration(problem: Problem, share: float) -> None:
    check(problem, share)


@settings(max_examples=60, deadline=None)
@given(problems(resources=True), st.floats(0.0, 1.0))
def test_least_latency_equals_enumeration_with_resources(problem: Problem, share: float) -> None:
    check(problem, share)


def check(problem: Problem, share: float) -> None:
    plans = brute_force(problem)
    if not plans.fits.any():
        with pytest.raises(BudgetError):
            least_latency(problem, 0.0)
        return
    values, seconds = plans.value[plans.fits], plans.seconds[plans.fits]
    floor = float(values.min() + share * np.ptp(values))
    best = float(seconds[values >= floor - 1e-9 * (1 + abs(floor))].min())
    found = least_latency(problem, floor, gap=1e-5)
    assert found.solution.value >= floor - 2e-9 * (1 + abs(floor))
    assert found.bound <= best + 1e-9 * (1 + abs(best))
    assert found.amount == found.solution.seconds <= best + 1e-5 * (best + abs(problem.constant)) + 1e-9
    row = (plans.sizes == [found.solution.sizes[n] for n in plans.names]).all(axis=1)
    assert plans.fits[row].all()
    with pytest.raises(BudgetError, match="the most within the limits is"):
        least_latency(problem, float(values.max()) + 0.1 * (1 + abs(float(values.max()))))


@pytest.mark.parametrize(("share", "time"), [(0.5, 0.7), (0.8, 0.95), (0.95, 1.0)])
def test_least_memory_equals_enumeration(share: float, time: float) -> None:
    problem, candidates, memory = forked()
    fixed = {n: s[-1] for n, s in candidates.items()}
    floor = floor_of(problem, share)
    budget = time * evaluate(problem, {n: v.sizes[-1] for n, v in problem.variables.items()}).seconds
    plans = brute_force(problem)
    good = (plans.value >= floor) & (plans.seconds <= budget)
    peaks = [memory.peak({**fixed, **dict(zip(plans.names, map(int, row), strict=True))}) for row in plans.sizes[good]]
    found = least_memory(problem, floor, budget, MemoryLimit(memory, candidates, 1e9), lambda p, goal: solve(p, goal, gap=1e-6))
    assert found.solution.value >= floor * (1 - 1e-8)
    assert found.solution.seconds <= budget
    assert found.amount == memory.peak({**fixed, **found.solution.sizes}) == min(peaks)
    assert found.gap <= 1e-3


def test_floors_that_cannot_be_kept_are_said() -> None:
    problem, candidates, memory = forked()
    with pytest.raises(OptionError, match=r"a share of 1\.5 cannot be retained"):
        floor_of(problem, 1.5)
    with pytest.raises(BudgetError, match="lower the floor"):
        least_memory(problem, floor_of(problem, 1.0), 1e9, MemoryLimit(memory, candidates, 2e4))
