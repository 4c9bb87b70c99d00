"""Problems that make no sense are refused by name; solutions explain themselves."""

import numpy as np
import pytest
from allocation_cases import chain_network, largest_sizes

from billhook.ir.errors import AxisError, BudgetError, DataError, OptionError
from billhook.passes.allocate import Factor, Problem, Resource, SumFactor, Variable, evaluate, front, solve

AB = {"a": Variable((0, 8), np.array([0.0, 1.0])), "b": Variable((8, 16), np.array([1.0, 3.0]))}
COST = Factor("conv", ("a", "b"), np.array([[1.0, 2.0], [3.0, 6.0]]))


def test_candidates_and_values_are_checked() -> None:
    with pytest.raises(DataError, match="ascend"):
        Variable((8, 8), np.zeros(2))
    with pytest.raises(DataError, match="finite value"):
        Variable((8, 16), np.array([0.0, np.nan]))
    with pytest.raises(DataError, match="finite value"):
        Variable((8, 16), np.zeros(3))


def test_tables_are_checked() -> None:
    with pytest.raises(DataError, match="conv: its table has shape"):
        Problem(AB, (Factor("conv", ("a", "b"), np.zeros((2, 3))),))
    with pytest.raises(DataError, match="conv: its table holds NaN"):
        Problem(AB, (Factor("conv", ("a",), np.array([np.nan, 1.0])),))
    with pytest.raises(DataError, match="conv: its table holds NaN or -inf"):
        Problem(AB, (Factor("conv", ("a",), np.array([-np.inf, 1.0])),))
    with pytest.raises(DataError, match="sum up to 24, but its table ends at width 16"):
        Problem(AB, (SumFactor("cat", ("a", "b"), (), (8, 16), np.ones(2)),))
    with pytest.raises(DataError, match="1 to 4 variables"):
        Factor("conv", ("a", "b"), np.zeros(2))
    with pytest.raises(DataError, match="does not fit 2 widths"):
        SumFactor("cat", ("a",), ("b",), (0, 8), np.zeros(2))


def test_a_problem_without_a_choice_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to allocate"):
        Problem({}, ())


def test_unknown_axes_are_named() -> None:
    with pytest.raises(AxisError, match="factor conv names the axis c"):
        Problem(AB, (Factor("conv", ("c",), np.zeros(2)),))
    with pytest.raises(AxisError, match="keep_one names the axis c"):
        Problem(AB, (), keep_one=(("a", "c"),))
    with pytest.raises(AxisError, match="a: size 4 is not one"):
        evaluate(Problem(AB, (COST,)), {"a": 4, "b": 8})
    with pytest.raises(AxisError, match="break a floor"):
        evaluate(Problem(AB, (COST,), floors={"a": 8}), {"a": 0, "b": 8})


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="floor 32 exceeds its largest size 16"):
        Problem(AB, (COST,), floors={"b": 32})
    with pytest.raises(OptionError, match="axes a, b: no common candidate of 9"):
        solve(Problem(AB, (COST,), uniform=(("a", "b"),), floors={"b": 9}), 1.0)
    with pytest.raises(OptionError, match="distinct names"):
        Problem(AB, (COST,), resources=(Resource("seconds", 1.0, ()),))
    with pytest.raises(OptionError, match="not a number"):
        solve(Problem(AB, (COST,)), float("nan"))
    with pytest.raises(OptionError, match="not a number"):
        front(Problem(AB, (COST,))).at(float("nan"))


def test_budgets_that_nothing_meets() -> None:
    problem = Problem(AB, (COST,), constant=0.25)
    with pytest.raises(BudgetError, match=r"budget of 1000 ms: the smallest reachable latency is 1250 ms"):
        solve(problem, 1.0)
    with pytest.raises(BudgetError, match="smallest reachable latency is 1250 ms"):
        front(problem).at(1.0)
    limited = Problem(AB, (COST,), resources=(Resource("bytes", 1.5, (Factor("w", ("b",), np.array([2.0, 3.0])),)),))
    with pytest.raises(BudgetError, match="limits of the resources \\(bytes\\)"):
        solve(limited, 10.0)


def test_a_sum_between_two_widths_costs_what_the_larger_one_costs() -> None:
    cat = SumFactor("cat", ("a", "b"), (), (10, 20, 30), np.array([1.0, 2.0, 4.0]))
    problem = Problem(AB, (cat,))
    seconds = {(a, b): evaluate(problem, {"a": a, "b": b}).seconds for a in (0, 8) for b in (8, 16)}
    assert seconds == {(0, 8): 1.0, (0, 16): 2.0, (8, 8): 2.0, (8, 16): 4.0}


def test_an_input_listed_twice_counts_twice() -> None:
    problem = Problem(AB, (SumFactor("cat", ("b", "b"), ("a",), (16, 32), np.array([[1.0, 2.0], [3.0, 4.0]])),))
    assert evaluate(problem, {"a": 8, "b": 16}).seconds == 4.0


def test_a_plan_that_fits_whole_is_not_bound() -> None:
    found = solve(Problem(AB, (COST,)), 6.0)
    assert found.sizes == {"a": 8, "b": 16}
    assert found.binding == ()
    assert found.gap == 0.0
    assert "no limit binds" in str(found)


def test_marginals_are_the_differences_to_the_neighbours() -> None:
    problem = chain_network(8, 6, seed=0)
    dense = evaluate(problem, largest_sizes(problem))
    found = solve(problem, 0.5 * dense.seconds)
    assert "binding: seconds" in str(found)
    for name, marginal in found.marginals.items():
        sizes = problem.variables[name].sizes
        place = sizes.index(found.sizes[name])
        for step, neighbour in ((marginal.smaller, place - 1), (marginal.larger, place + 1)):
            if not 0 <= neighbour < len(sizes):
                assert step is None
                continue
            assert step is not None
            totals = evaluate(problem, {**found.sizes, name: sizes[neighbour]})
            assert step.size == sizes[neighbour]
            assert step.seconds == pytest.approx(totals.seconds - found.seconds, abs=1e-15)
            assert step.value == pytest.approx(totals.value - found.value, abs=1e-12)


def test_marginals_stop_where_the_side_constraints_do() -> None:
    found = solve(Problem(AB, (COST,), keep_one=(("a",),)), 3.0)
    assert found.sizes["a"] == 8
    assert found.marginals["a"].smaller is None


def test_peak_resources_limit_single_entries() -> None:
    memory = Resource("memory", 10.0, (Factor("conv", ("a", "b"), np.array([[1.0, 11.0], [5.0, 7.0]])),), combine="peak")
    problem = Problem(AB, (COST,), resources=(memory,))
    assert not evaluate(problem, {"a": 0, "b": 16}).allowed
    assert solve(problem, 2.5).sizes == {"a": 0, "b": 8}


def test_inputs_are_copied() -> None:
    values = np.array([0.0, 1.0])
    variable = Variable((0, 8), values)
    values[0] = 5.0
    assert variable.values[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        variable.values[0] = 1.0
