"""Side constraints: their texts, what they leave to choose from, and that the allocator keeps them exactly (by enumeration)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import billhook as bh
from billhook.costmodel.family import width
from billhook.costmodel.network_cost import CostTable, CostTables
from billhook.ir.errors import AxisError, BudgetError, OptionError
from billhook.ir.target import Target
from billhook.passes.allocate import evaluate, front, solve
from billhook.passes.candidate_sizes import candidate_sizes, dense_sizes
from billhook.passes.constraints import Constraint, parse_constraint, uniform_groups
from billhook.passes.width_problem import plan_of, width_problem

EVERY_SIZE = replace(Target(), fine_lanes=1)
PATTERNS = st.text("abz019._*?[]", min_size=1).filter(lambda p: not p.isdigit())
CONSTRAINTS = st.one_of(
    st.lists(PATTERNS, min_size=1, max_size=3).map(lambda p: bh.uniform(*p)),
    st.builds(bh.divisible, PATTERNS, st.integers(1, 99)),
    st.builds(bh.at_least, PATTERNS, st.integers(1, 99)),
    st.builds(bh.fixed, PATTERNS, st.none() | st.integers(1, 99)),
)


def chain(*widths: int) -> bh.Program:
    """Linear layers whose hidden axes are called 0.out, 1.out, ..., the last one (frozen, an output) last.out."""
    layers = {str(i): nn.Linear(a, b) for i, (a, b) in enumerate(pairwise((3, *widths)))}
    layers["last"] = nn.Linear(widths[-1], 4)
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return bh.trace(network, torch.randn(2, 3))


@given(CONSTRAINTS)
def test_texts_round_trip(constraint: Constraint) -> None:
    assert parse_constraint(str(constraint)) == constraint


def test_texts() -> None:
    assert parse_constraint(" divisible( *.mlp*,64 ) ") == bh.divisible("*.mlp*", 64)
    assert parse_constraint("uniform(a, b.*)") == bh.uniform("a", "b.*")
    assert parse_constraint("fixed(head)") == bh.fixed("head")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("divisible(*.mlp*)", "the last argument of divisible is a number"),
        ("devisible(a,2)", r"did you mean divisible\(\.\.\.\)"),
        ("a % 2", "write uniform"),
        ("uniform()", "at least one axis"),
        ("at_least(a,0)", "1 or more"),
        ("fixed(a,-3)", "1 or more"),
    ],
)
def test_wrong_texts(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_constraint(text)


@pytest.mark.parametrize(
    ("constraints", "error", "message"),
    [
        ([bh.uniform("*.mlp")], AxisError, r"no axis matches \*\.mlp; there are"),
        ([bh.divisible("0.oot", 2)], AxisError, "did you mean 0.out"),
        ([bh.fixed("last.*", 2)], AxisError, "every axis that matches last.* is frozen"),
        ([bh.fixed("last.out", 2)], OptionError, "sizes \\[2, 4\\] at once"),
        ([bh.at_least("0.out", 13)], OptionError, r"no size of 0.out\[12\] satisfies at_least\(0.out, 13\)"),
        ([bh.fixed("0.out", 9), bh.divisible("0.out", 2)], OptionError, "no size of 0.out"),
        ([bh.fixed("0.out", 9), bh.fixed("?.out", 8)], OptionError, r"sizes \[8, 9\] at once"),
        ([bh.uniform("*.out"), bh.at_least("0.out", 5)], OptionError, r"last.out\[4\] \(frozen\)"),
    ],
)
def test_impossible_constraints(constraints: list[Constraint], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        candidate_sizes(chain(12, 8), EVERY_SIZE, constraints=constraints)


def test_frozen_axes_pin_their_group_and_nothing_else() -> None:
    program = chain(12, 8)
    assert set(candidate_sizes(program, EVERY_SIZE, constraints=[bh.uniform("*.out")]).values()) >= {(4,)}
    assert candidate_sizes(program, EVERY_SIZE, constraints=[bh.divisible("*.out", 3)])["last.out"] == (4,)


def test_sizes_that_the_hardware_does_not_favour_are_offered_where_they_are_asked_for() -> None:
    target, program = replace(Target(), fine_lanes=16), chain(100, 64)
    sizes = candidate_sizes(program, target, floor=0.1, blocks=False, constraints=[bh.divisible("0.out", 10)])
    assert sizes["0.out"] == (20, 30, 40, 50, 60, 70, 80, 90, 100)
    assert sizes["1.out"] == candidate_sizes(program, target, blocks=False)["1.out"]
    assert candidate_sizes(program, target, constraints=[bh.fixed("0.out", 37)])["0.out"] == (37,)
    common = candidate_sizes(program, target, blocks=False, constraints=[bh.uniform("0.out", "1.out")])
    assert common["0.out"] == common["1.out"] == (16, 32, 48, 64)
    odd = candidate_sizes(program, target, constraints=[bh.uniform("?.out"), bh.fixed("1.out", 37)])
    assert odd["0.out"] == odd["1.out"] == (37,)


def keeps(sizes: Mapping[str, int], constraint: Constraint, program: bh.Program) -> bool:
    """The constraints' meaning, said once more. Only for patterns that are names of axes."""
    values = [sizes[name] for name in constraint.patterns]
    if constraint.kind == "uniform":
        return len(set(values)) == 1
    if constraint.kind == "divisible":
        return values[0] % (constraint.number or 1) == 0
    if constraint.kind == "at_least":
        return values[0] >= (constraint.number or 0)
    return values[0] == (constraint.number or program.axis(constraint.patterns[0]).size)


@st.composite
def limits(draw: st.DrawFn, names: Sequence[str], largest: Mapping[str, int]) -> tuple[Constraint, ...]:
    def one() -> Constraint:
        name = draw(st.sampled_from(list(names)))
        kind = draw(st.sampled_from(["uniform", "uniform", "divisible", "at_least", "fixed"]))
        if kind == "uniform":
            return bh.uniform(*draw(st.lists(st.sampled_from(list(names)), min_size=1, max_size=3, unique=True)))
        number = draw(st.integers(1, largest[name]))
        if kind == "fixed":
            return bh.fixed(name, draw(st.none() | st.just(number)))
        return (bh.divisible if kind == "divisible" else bh.at_least)(name, number)

    return tuple(one() for _ in range(draw(st.integers(1, 3))))


PROGRAM = chain(6, 5, 6, 3)
HIDDEN: tuple[str, ...] = ("0.out", "1.out", "2.out", "3.out")


class Costs:
    """Random seconds for every pair of neighbouring widths, as tables over the candidates and one plan at a time."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seconds = {pair: rng.gamma(1.0, 1.0, (7, 7)) for pair in pairwise(HIDDEN)}
        self.worth = {n: np.concatenate([[0.0], np.cumsum(rng.gamma(1.0, 1.0, PROGRAM.axis(n).size))]) for n in HIDDEN}

    def tables(self, candidates: Mapping[str, Sequence[int]]) -> CostTables:
        tables: list[CostTable] = []
        constant = 0.25
        for pair, seconds in self.seconds.items():
            grid = seconds[np.ix_(*(candidates[n] for n in pair))]
            varying = tuple(n for n in pair if len(candidates[n]) > 1)
            if varying:
                kept = tuple(width(n) for n in varying), tuple(tuple(candidates[n]) for n in varying)
                tables.append(CostTable("-".join(pair), *kept, grid.reshape([len(candidates[n]) for n in varying])))
            else:
                constant += grid.item()
        return CostTables(tuple(tables), constant)

    def of(self, sizes: Mapping[str, int]) -> float:
        return 0.25 + sum(float(t[sizes[a], sizes[b]]) for (a, b), t in self.seconds.items())

    def value(self, sizes: Mapping[str, int]) -> float:
        """What the sizes retain, but for those axes whose only size is below the dense one: there is nothing to compare there."""
        return sum(float(self.worth[n][sizes[n]]) for n in HIDDEN)


def plans(constraints: Sequence[Constraint]) -> Iterator[dict[str, int]]:
    """Every plan of the whole space that keeps the constraints."""
    for sizes in product(*(range(1, PROGRAM.axis(n).size + 1) for n in HIDDEN)):
        plan = dict(zip(HIDDEN, sizes, strict=True))
        if all(keeps(plan, c, PROGRAM) for c in constraints):
            yield plan


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1), limits(HIDDEN, dense_sizes(PROGRAM)), st.floats(0.0, 1.0))
def test_the_plan_is_the_best_of_all_that_keep_the_constraints(seed: int, constraints: tuple[Constraint, ...], share: float) -> None:
    costs, allowed = Costs(seed), list(plans(constraints))
    if not allowed:
        with pytest.raises(OptionError):
            candidate_sizes(PROGRAM, EVERY_SIZE, floor=0.0, blocks=False, constraints=constraints)
        return
    candidates = candidate_sizes(PROGRAM, EVERY_SIZE, floor=0.0, blocks=False, constraints=constraints)
    if all(candidates[n] == (PROGRAM.axis(n).size,) for n in HIDDEN):
        return  # nothing to allocate
    groups = uniform_groups(PROGRAM, constraints)
    problem = width_problem(PROGRAM, costs.worth, candidates, costs.tables(candidates), uniform=groups)
    seconds = [costs.of(p) for p in allowed]
    budget = min(seconds) + share * (max(seconds) - min(seconds)) + 1e-9
    unseen = sum(float(costs.worth[n][candidates[n][0]]) for n in HIDDEN if len(candidates[n]) == 1)
    best = max(costs.value(p) for p, s in zip(allowed, seconds, strict=True) if s <= budget) - unseen
    found = solve(problem, budget, gap=1e-6)
    whole = {**dense_sizes(PROGRAM), **found.sizes}
    assert all(keeps(whole, c, PROGRAM) for c in constraints)
    assert found.seconds == pytest.approx(costs.of(whole))
    assert found.seconds <= budget
    assert found.value == pytest.approx(best, rel=1e-5, abs=1e-5)
    assert found.bound >= best - 1e-9 * (1 + abs(best))
    assert all(evaluate(problem, p.sizes).allowed for p in front(problem).points)
    assert plan_of(PROGRAM, {n: np.arange(PROGRAM.axis(n).size, dtype=float) for n in HIDDEN}, found.sizes).sizes() == {
        n: s for n, s in found.sizes.items() if s < PROGRAM.axis(n).size
    }
    with pytest.raises(BudgetError, match="smallest reachable latency"):
        solve(problem, min(seconds) - 1e-3, gap=1e-6)


def test_heads_of_all_layers_get_one_size() -> None:
    """The usual request: one number of heads and one MLP width in every layer, so that a configuration can say it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return x + self.down(torch.relu(self.up(x)))

    program = bh.trace(nn.Sequential(nn.Linear(3, 16), Block(), Block(), nn.Linear(16, 2)), torch.randn(2, 5, 3))
    constraints = [bh.uniform("*.in_proj_weight.out.0"), parse_constraint("uniform(*.up.out)"), bh.divisible("*.up.out", 8)]
    sizes = candidate_sizes(program, EVERY_SIZE, blocks=False, constraints=constraints)
    groups = uniform_groups(program, constraints)
    assert {len(g) for g in groups} == {2}
    assert sizes["1.up.out"] == sizes["2.up.out"] == (8, 16, 24)
    worth = {axis.name: np.random.default_rng(i).random(axis.size + 1).cumsum() for i, axis in enumerate(program.axes)}
    tables = tuple(
        CostTable(n, (width(n),), (tuple(s),), np.array(s, dtype=float) * (i + 1)) for i, (n, s) in enumerate(sizes.items()) if len(s) > 1
    )
    problem = width_problem(program, worth, sizes, CostTables(tables, 0.0), uniform=groups)
    for point in front(problem).points:
        assert all(point.sizes[a] == point.sizes[b] for a, b in groups)
