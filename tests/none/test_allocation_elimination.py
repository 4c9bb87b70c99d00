"""Variable elimination, swaps and the model against direct enumeration of the same problem."""

import numpy as np
import pytest
from allocation_cases import brute_force, dense_network, problems, residual_network
from hypothesis import given, settings
from hypothesis import strategies as st

from billhook.ir.errors import OptionError
from billhook.passes.allocation_eliminate import Elimination
from billhook.passes.allocation_lagrange import Bound
from billhook.passes.allocation_model import Model, build_model
from billhook.passes.allocation_problem import Factor, Ints, Problem, Variable
from billhook.passes.allocation_search import Swaps


def all_choices(model: Model) -> Ints:
    grid = np.meshgrid(*[np.arange(n) for n in model.states[: model.decisions]], indexing="ij")
    return np.stack([g.reshape(-1) for g in grid], axis=1)


@settings(max_examples=100)
@given(problems(resources=True), st.integers(0, 1000))
def test_maximum_and_marginals(problem: Problem, seed: int) -> None:
    model = build_model(problem)
    weights = np.random.default_rng(seed).normal(size=(3, len(model.channels)))
    elimination = Elimination(model)
    choices = all_choices(model)
    totals, allowed = model.totals(choices)
    scores = np.full((3, len(choices)), -np.inf)
    scores[:, allowed] = weights @ totals[allowed].T
    found, best = elimination.maximise(weights)
    assert best == pytest.approx(scores.max(axis=1), abs=1e-9)
    if allowed.any():
        reached, kept = model.totals(found)
        assert kept.all()
        assert (reached * weights).sum(axis=1) == pytest.approx(best, abs=1e-9)
    for decision, tops in enumerate(elimination.marginals(weights[0])):
        expected = [scores[0, choices[:, decision] == s].max() for s in range(model.states[decision])]
        assert tops == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100)
@given(problems(resources=True))
def test_model_and_its_swaps_equal_enumeration(problem: Problem) -> None:
    model = build_model(problem)
    choices = all_choices(model)
    totals, allowed = model.totals(choices)
    plans = brute_force(problem)
    assert allowed.sum() == len(plans.seconds)
    assert np.sort(totals[allowed, 0]) == pytest.approx(np.sort(plans.value), abs=1e-9)
    assert np.sort(totals[allowed, 1]) == pytest.approx(np.sort(plans.seconds), abs=1e-9)
    if not allowed.any():
        return
    swaps = Swaps(model)
    base = choices[allowed][:8]
    after, fine = swaps.evaluate(base)
    plan, number = np.indices(fine.shape).reshape(2, -1)
    expected, kept = model.totals(swaps.apply(base, plan, number))
    assert (fine.reshape(-1) == kept).all()
    assert after.reshape(-1, after.shape[-1])[kept] == pytest.approx(expected[kept], abs=1e-9)


def test_residual_networks_have_tree_width_two() -> None:
    elimination = Elimination(build_model(residual_network(60, 16, seed=0)))
    assert elimination.largest == 16**3


def test_sums_are_substituted_not_spelled_out() -> None:
    model = build_model(dense_network((6, 12), 16, seed=0))
    elimination = Elimination(model)
    assert len(model.sums) == 6 + 12  # one per concatenation, prefixes shared
    assert elimination.tables == len(model.tables)  # no sum became a table
    widest = max(model.states)
    assert elimination.largest <= widest * 16 * 5


def test_the_order_does_not_depend_on_the_order_of_the_factors() -> None:
    problem = residual_network(40, 8, seed=1)
    turned = Problem(problem.variables, tuple(reversed(problem.factors)))
    weights = np.array([[1.0, -1e3]])
    (a, _), (b, _) = Elimination(build_model(problem)).maximise(weights), Elimination(build_model(turned)).maximise(weights)
    assert (a == b).all()


def test_too_dense_a_coupling_is_refused_by_name() -> None:
    sizes = tuple(range(64))
    variables = {f"v{i}": Variable(sizes, np.arange(64.0)) for i in range(8)}
    pairs = [(a, b) for a in variables for b in variables if a < b]
    problem = Problem(variables, tuple(Factor(f"{a}{b}", (a, b), np.ones((64, 64))) for a, b in pairs))
    with pytest.raises(OptionError, match=r"v0.*coupled too densely"):
        Elimination(build_model(problem))


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 10)), min_size=1, max_size=8), st.floats(-20, 20))
def test_bound_is_the_least_line(lines: list[tuple[float, float]], budget: float) -> None:
    expected = min(a + b * budget for a, b in lines)
    assert Bound.of(lines)(np.array([budget]))[0] == pytest.approx(expected, abs=1e-6)
