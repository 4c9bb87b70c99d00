"""The allocator on problems of the size and structure of real networks."""

import numpy as np
import pytest
from allocation_cases import chain_network, dense_network, largest_sizes, residual_network

from billhook.ir.errors import BudgetError
from billhook.passes.allocate import Factor, Problem, Resource, Variable, evaluate, front, solve

NETWORKS = {
    "chain": lambda: chain_network(30, 16, seed=0),
    "wide chain": lambda: chain_network(20, 48, seed=1, stairs=False),
    "residual": lambda: residual_network(60, 16, seed=0),
    "dense": lambda: dense_network((6, 12), 16, seed=0),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.5, 0.15])
def test_the_gap_is_closed_and_the_plan_is_what_it_claims(network: str, share: float) -> None:
    problem = NETWORKS[network]()
    dense = evaluate(problem, largest_sizes(problem))
    found = solve(problem, share * dense.seconds)
    assert found.gap <= 1e-3
    assert found.value <= found.bound
    totals = evaluate(problem, found.sizes)
    assert totals.allowed
    assert totals.seconds == pytest.approx(found.seconds, rel=1e-12)
    assert totals.seconds <= found.budget
    assert totals.value == pytest.approx(found.value, rel=1e-12)
    assert found.binding == ("seconds",)


@pytest.mark.parametrize("network", ["chain", "residual", "dense"])
def test_one_front_answers_every_budget(network: str) -> None:
    problem = NETWORKS[network]()
    curve = front(problem)
    dense = evaluate(problem, largest_sizes(problem))
    assert (np.diff(curve.seconds) > 0).all()
    assert (np.diff(curve.value) > 0).all()
    assert curve.value[-1] == pytest.approx(dense.value)
    for share in (0.2, 0.35, 0.5, 0.8):
        at, found = curve.at(share * dense.seconds), solve(problem, share * dense.seconds)
        assert at.gap <= 2e-3
        assert at.bound == pytest.approx(found.bound, rel=1e-3)
        assert found.value <= at.bound * (1 + 1e-9)
        assert at.value <= found.bound * (1 + 1e-9)


def test_a_tiny_gap_is_closed_by_dropping_states_and_highs() -> None:
    problem = residual_network(23, 8, seed=3)
    dense = evaluate(problem, largest_sizes(problem))
    loose = solve(problem, 0.3 * dense.seconds, gap=0.05)
    tight = solve(problem, 0.3 * dense.seconds, gap=2e-5, time_limit=120.0)
    assert tight.gap <= 2e-5
    assert tight.bound <= loose.bound
    assert tight.value >= loose.value


def test_a_second_budget_binds_where_it_is_the_tighter_one() -> None:
    problem = chain_network(20, 12, seed=2)
    dense = evaluate(problem, largest_sizes(problem))
    sizes = {n: np.array(v.sizes, dtype=np.float64) for n, v in problem.variables.items()}
    pairs = [f.variables for f in problem.factors if isinstance(f, Factor)]
    weights = tuple(Factor(f"{a}->{b}", (a, b), 4.0 * sizes[a][:, None] * sizes[b]) for a, b in pairs)
    whole = sum(float(f.table[-1, -1]) for f in weights)
    bounded = Problem(problem.variables, problem.factors, resources=(Resource("weights", 0.3 * whole, weights),))
    found = solve(bounded, 0.9 * dense.seconds)
    assert found.binding == ("weights",)
    assert found.gap <= 1e-3
    assert found.resources["weights"] <= 0.3 * whole
    both = solve(bounded, 0.28 * dense.seconds)
    assert both.value <= found.value
    assert both.seconds <= 0.28 * dense.seconds
    assert both.gap <= 1e-3


def removable_blocks() -> Problem:
    """Two blocks of two inner axes each that may vanish; half a block is forbidden, and most of its cost comes with its first channel."""
    inner = Variable((0, 8, 16), np.array([0.0, 0.5, 1.0]))
    half = np.array([[0.0, np.inf, np.inf], [np.inf, 3.0, 3.5], [np.inf, 3.5, 4.0]])
    names = [("a0", "b0"), ("a1", "b1")]
    return Problem({n: inner for pair in names for n in pair}, tuple(Factor(f"block{i}", pair, half) for i, pair in enumerate(names)))


def test_a_block_is_removed_as_a_whole_where_that_is_best() -> None:
    found = solve(removable_blocks(), 4.0, gap=1e-5)
    assert sorted(found.sizes.values()) == [0, 0, 16, 16]
    assert found.value == pytest.approx(2.0)


def test_graph_cut_safety_keeps_a_path() -> None:
    free = removable_blocks()
    assert set(solve(free, 2.5).sizes.values()) == {0}
    kept = Problem(free.variables, free.factors, keep_one=(("a0", "a1"),))
    assert sorted(solve(kept, 3.0).sizes.values()) == [0, 0, 8, 8]
    with pytest.raises(BudgetError, match="smallest reachable latency is 3000 ms"):
        solve(kept, 2.5)


def test_uniform_groups_get_one_size() -> None:
    problem = chain_network(12, 8, seed=4)
    groups = (("v1", "v2", "v3"), ("v3", "v7"))  # overlapping groups are one group
    dense = evaluate(problem, largest_sizes(problem))
    tied = solve(Problem(problem.variables, problem.factors, uniform=groups), 0.4 * dense.seconds)
    free = solve(problem, 0.4 * dense.seconds)
    assert len({tied.sizes[n] for n in ("v1", "v2", "v3", "v7")}) == 1
    assert tied.value <= free.bound
    assert tied.gap <= 1e-3


def test_floors_hold() -> None:
    problem = chain_network(12, 8, seed=5)
    dense = evaluate(problem, largest_sizes(problem))
    floors = {"v3": 40, "v5": 33}  # between two candidates: the larger one
    found = solve(Problem(problem.variables, problem.factors, floors=floors), 0.3 * dense.seconds)
    assert found.sizes["v3"] >= 40
    assert found.sizes["v5"] >= 40
