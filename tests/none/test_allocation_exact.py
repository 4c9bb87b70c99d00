"""The allocator against exhaustive enumeration on random small problems."""

import numpy as np
import pytest
from allocation_cases import brute_force, problems
from hypothesis import given, settings
from hypothesis import strategies as st

from billhook.ir.errors import BudgetError
from billhook.passes.allocate import Bound, Factor, Problem, Variable, evaluate, front, judge, solve
from billhook.passes.allocation_eliminate import Elimination
from billhook.passes.allocation_lagrange import by_cases, envelope
from billhook.passes.allocation_model import build_model

SHARES = st.floats(0.0, 1.1)


def budget_at(problem: Problem, share: float) -> float:
    """A budget between the fastest and the slowest plan."""
    seconds = brute_force(problem).seconds
    return float(seconds.min() + share * np.ptp(seconds) + 1e-12) if len(seconds) else 1.0


def check(problem: Problem, budget: float, gap: float) -> None:
    plans = brute_force(problem)
    best = plans.best(budget)
    if best == -np.inf:
        with pytest.raises(BudgetError):
            solve(problem, budget, gap=gap)
        return
    found = solve(problem, budget, gap=gap)
    assert found.gap <= gap
    assert found.seconds <= budget
    assert found.bound >= best - 1e-9 * (1 + abs(best))
    assert found.value >= best - gap * max(abs(found.bound), abs(found.value)) - 1e-9
    row = (plans.sizes == [found.sizes[n] for n in plans.names]).all(axis=1)
    assert row.sum() == 1
    assert plans.fits[row].all()
    assert found.value == pytest.approx(plans.value[row][0], abs=1e-9)
    assert found.seconds == pytest.approx(plans.seconds[row][0], abs=1e-9)


@settings(max_examples=120, deadline=None)
@given(problems(), SHARES, st.sampled_from([1e-3, 1e-5]))
def test_solve_equals_enumeration(problem: Problem, share: float, gap: float) -> None:
    check(problem, budget_at(problem, share), gap)


@settings(max_examples=80, deadline=None)
@given(problems(resources=True), SHARES, st.sampled_from([1e-3, 1e-5]))
def test_solve_equals_enumeration_with_resources(problem: Problem, share: float, gap: float) -> None:
    check(problem, budget_at(problem, share), gap)


@settings(max_examples=60, deadline=None)
@given(problems(resources=True))
def test_an_unreachable_budget_states_the_smallest_latency(problem: Problem) -> None:
    fastest = brute_force(problem).fastest()
    if not np.isfinite(fastest):
        with pytest.raises(BudgetError, match="side constraints"):
            solve(problem, 1.0)
        return
    with pytest.raises(BudgetError, match="smallest reachable latency") as error:
        solve(problem, fastest - 0.01, gap=1e-9)
    stated = float(str(error.value).split("latency is ")[1].split(" ms")[0])
    assert stated == pytest.approx(fastest * 1e3, rel=1e-5, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(problems(), SHARES)
def test_a_plan_from_elsewhere_is_judged_by_the_bound(problem: Problem, share: float) -> None:
    plans = brute_force(problem)
    budget = budget_at(problem, share)
    for row in plans.sizes[:: max(len(plans.sizes) // 5, 1)]:
        sizes = dict(zip(plans.names, row.tolist(), strict=True))
        found, totals = judge(problem, sizes, budget), evaluate(problem, sizes)
        assert (found.value, found.seconds, found.sizes) == (totals.value, totals.seconds, sizes)
        assert found.bound >= max(plans.best(budget), found.value) - 1e-9


@settings(max_examples=80, deadline=None)
@given(problems(), SHARES)
def test_front_is_monotone_bounded_and_achieved(problem: Problem, share: float) -> None:
    plans = brute_force(problem)
    if not len(plans.seconds):
        with pytest.raises(BudgetError):
            front(problem)
        return
    curve = front(problem)
    assert (np.diff(curve.seconds) > 0).all()
    assert (np.diff(curve.value) > 0).all()
    assert curve.seconds[0] == pytest.approx(plans.seconds.min(), abs=1e-9)
    assert curve.value[-1] == pytest.approx(plans.value.max(), abs=1e-9)
    for point in curve.points:
        totals = evaluate(problem, point.sizes)
        assert totals.allowed
        assert (totals.value, totals.seconds) == pytest.approx((point.value, point.seconds), abs=1e-9)
    budget = budget_at(problem, share)
    at = curve.at(budget)
    assert at.value <= plans.best(budget) + 1e-9
    assert at.bound >= plans.best(budget) - 1e-9
    assert at.seconds <= budget


@settings(max_examples=60, deadline=None)
@given(problems())
def test_front_holds_every_vertex_of_the_concave_envelope(problem: Problem) -> None:
    plans = brute_force(problem)
    if not len(plans.seconds):
        return
    hull = envelope(Elimination(build_model(problem)))
    for budget in np.unique(plans.seconds):
        # the best mixture of two plans at this budget, by definition of the envelope
        low = plans.seconds <= budget
        rise = plans.value[~low][None, :] - plans.value[low][:, None]
        run = plans.seconds[~low][None, :] - plans.seconds[low][:, None]
        mixed = plans.value[low][:, None] + rise * (budget - plans.seconds[low])[:, None] / np.maximum(run, 1e-300)
        concave = max(plans.best(budget), float(mixed.max(initial=-np.inf)))
        assert float(hull.bound(np.array([budget]))[0]) == pytest.approx(concave, abs=1e-7)
        if plans.best(budget) >= concave - 1e-12:
            assert hull.totals[hull.totals[:, 1] <= budget + 1e-9, 0].max() == pytest.approx(concave, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_bound_by_cases_lies_between_the_plans_and_the_envelope(problem: Problem) -> None:
    plans = brute_force(problem)
    if not len(plans.seconds):
        return
    elimination = Elimination(build_model(problem))
    budgets = np.unique(plans.seconds)
    bound = envelope(elimination).bound
    tight = by_cases(elimination, bound, budgets)(budgets)
    assert (tight <= bound(budgets) + 1e-9).all()
    assert (tight >= np.array([plans.best(b) for b in budgets]) - 1e-7).all()


def test_cases_exclude_mixtures_of_plans() -> None:
    """Two plans and nothing between them: the envelope is the line, the cases are the step."""
    problem = Problem({"a": Variable((1, 2), np.array([0.0, 1.0]))}, (Factor("k", ("a",), np.array([1.0, 2.0])),))
    elimination = Elimination(build_model(problem))
    bound = envelope(elimination).bound
    middle = np.array([1.5])
    assert bound(middle)[0] == pytest.approx(0.5)
    steep = Bound.of([(-99.0, 100.0), (-1.0, 1.0), (1.0, 0.0)])  # another price, as a network's other axes bring
    assert by_cases(elimination, steep, middle)(middle)[0] == pytest.approx(0.0)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([0.0, 0.01, 0.1]))
def test_a_tolerance_loosens_the_envelope_by_no_more_than_that(problem: Problem, tolerance: float) -> None:
    plans = brute_force(problem)
    if not len(plans.seconds):
        return
    exact, loose = (envelope(Elimination(build_model(problem)), t) for t in (0.0, tolerance))
    budgets = np.unique(plans.seconds)
    slack = tolerance * max(np.abs(exact.totals[:, 0]).max(), 1e-9)
    assert (loose.bound(budgets) >= exact.bound(budgets) - 1e-7).all()
    assert (loose.bound(budgets) <= exact.bound(budgets) + slack + 1e-7).all()


@settings(max_examples=40, deadline=None)
@given(problems(resources=True), SHARES)
def test_front_with_resources_keeps_them(problem: Problem, share: float) -> None:
    plans = brute_force(problem)
    try:
        curve = front(problem)
    except BudgetError:
        return
    for point in curve.points:
        row = (plans.sizes == [point.sizes[n] for n in plans.names]).all(axis=1)
        assert plans.fits[row].all()
    budget = budget_at(problem, share)
    if budget >= curve.seconds[0]:
        assert curve.at(budget).value <= plans.best(budget) + 1e-9 <= curve.at(budget).bound + 2e-9


@settings(max_examples=30, deadline=None)
@given(problems(resources=True), SHARES)
def test_solving_is_deterministic(problem: Problem, share: float) -> None:
    budget = budget_at(problem, share)
    try:
        first = solve(problem, budget)
    except BudgetError:
        return
    assert solve(problem, budget) == first
