"""The literature's allocation rules, each against a few plain lines on problems small enough to enumerate."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from allocation_cases import largest_sizes

from billhook.ir.errors import BudgetError, OptionError
from billhook.passes.allocate import Factor, Problem, SumFactor, Variable, evaluate
from billhook.passes.allocation_adapt import adapt
from billhook.passes.allocation_presets import PRESETS, Preset, Task, choose, find_preset, within
from billhook.passes.allocation_sides import one_sided
from billhook.passes.allocation_steps import exponential_targets
from billhook.passes.allocation_threshold import threshold
from billhook.passes.allocation_uniform import uniform_share

MADE = {"stem": {"a"}, "a->b": {"b"}, "b->a": {"a"}, "a->c": {"c"}, "cat": {"c"}}


def problem(seed: int = 0, zero: bool = True) -> Problem:
    """A residual axis a, an inner axis b that may vanish, and c, which is made from a and from the concatenation of a and b."""
    rng = np.random.default_rng(seed)
    sizes = {"a": (2, 4, 6, 8), "b": (0, 2, 4, 6) if zero else (2, 4, 6), "c": (3, 6, 9)}
    values = {n: np.cumsum(rng.uniform(0.1, 1.0, len(s))[::-1].copy()) for n, s in sizes.items()}

    def table(*names: str) -> Any:
        grid = np.indices([len(sizes[n]) for n in names])
        widths = [np.array(sizes[n])[g] for n, g in zip(names, grid, strict=True)]
        return np.prod(widths, axis=0) * rng.uniform(0.8, 1.2, widths[0].shape)

    widths = tuple(range(2, 15, 2))
    cat = SumFactor("cat", ("a", "b"), ("c",), widths, np.multiply.outer(np.array(widths, dtype=np.float64), np.array(sizes["c"])) * 0.5)
    factors = (Factor("stem", ("a",), table("a")), *(Factor(f"{x}->{y}", (x, y), table(x, y)) for x, y in ("ab", "ba", "ac")), cat)
    return Problem({n: Variable(sizes[n], values[n]) for n in sizes}, factors, constant=5.0)


def plans(p: Problem) -> list[dict[str, int]]:
    return [dict(zip(p.variables, s, strict=True)) for s in product(*(v.sizes for v in p.variables.values()))]


def cost(factor: Factor | SumFactor, p: Problem, sizes: Mapping[str, int]) -> float:
    at = {n: p.variables[n].sizes.index(s) for n, s in sizes.items()}
    if isinstance(factor, Factor):
        return float(factor.table[tuple(at[n] for n in factor.variables)])
    row = next(i for i, w in enumerate(factor.widths) if w >= sum(sizes[n] for n in factor.inputs))
    return float(factor.table[(row, *(at[n] for n in factor.others))])


@pytest.mark.parametrize("side", ["made", "read"])
def test_a_sided_cost_freezes_the_other_side(side: str) -> None:
    p = problem()
    last = {"a": 6, "b": 4, "c": 9}
    sided = one_sided(p, last, "made" if side == "made" else "read", MADE)
    for sizes in plans(p):
        expected = p.constant
        for f in p.factors:
            free = {n for n in sizes if (n in MADE[f.name]) == (side == "made")}
            expected += cost(f, p, {n: sizes[n] if n in free else last[n] for n in sizes})
        assert evaluate(sided, sizes).seconds == pytest.approx(expected)


def test_targets_fall_exponentially() -> None:
    targets = exponential_targets(100.0, 25.0, 2)
    assert targets == pytest.approx((50.0, 25.0))
    ratios = np.divide(exponential_targets(80.0, 10.0, 6)[1:], exponential_targets(80.0, 10.0, 6)[:-1])
    np.testing.assert_allclose(ratios, ratios[0])
    with pytest.raises(OptionError, match="at least 1 step"):
        exponential_targets(1.0, 0.5, 0)


@pytest.mark.parametrize("seed", range(5))
def test_nvit_removes_the_lowest_of_score_less_latency(seed: int) -> None:
    p = problem(seed, zero=False)
    dense = evaluate(p, largest_sizes(p))
    goal, sizes = 0.4 * dense.seconds, largest_sizes(p)
    while (now := evaluate(p, sizes)).seconds > goal:  # the reference: every axis one candidate down, the lowest rank goes
        ranks: dict[str, float] = {}
        for n, s in sizes.items():
            if s > p.variables[n].sizes[0]:
                less = p.variables[n].sizes[p.variables[n].sizes.index(s) - 1]
                after = evaluate(p, {**sizes, n: less})
                ranks[n] = (now.value - after.value - dense.value / dense.seconds * (now.seconds - after.seconds)) / (s - less)
        n = min(ranks, key=ranks.__getitem__)
        sizes = {**sizes, n: p.variables[n].sizes[p.variables[n].sizes.index(sizes[n]) - 1]}
    assert threshold(p, goal) == sizes


@pytest.mark.parametrize("seed", range(5))
def test_netadapt_cuts_the_axis_whose_loss_is_lowest(seed: int) -> None:
    p = problem(seed)
    rng = np.random.default_rng(seed)
    losses = {tuple(s.values()): float(rng.uniform()) for s in plans(p)}
    asked: list[dict[str, int]] = []

    def loss(sizes: Mapping[str, int]) -> float:
        asked.append(dict(sizes))
        return losses[tuple(sizes.values())]

    dense = evaluate(p, largest_sizes(p)).seconds
    goal = 0.7 * dense
    found = adapt(p, goal, 1, loss)  # one iteration: the largest size of one axis that frees enough, by measured loss
    proposals: list[dict[str, int]] = []
    for n, v in p.variables.items():
        fitting = [s for s in v.sizes[:-1] if evaluate(p, {**largest_sizes(p), n: s}).seconds <= goal]
        proposals += [{**largest_sizes(p), n: max(fitting)}] if fitting else []
    assert asked == proposals
    assert found == min(proposals, key=lambda s: losses[tuple(s.values())])


def test_netadapt_reaches_the_goal_in_steps() -> None:
    p = problem()
    goal = 0.3 * evaluate(p, largest_sizes(p)).seconds
    assert evaluate(p, adapt(p, goal, 5)).seconds <= goal


def test_uniform_takes_one_share_of_every_axis() -> None:
    p = problem()
    goal = 0.5 * evaluate(p, largest_sizes(p)).seconds
    sizes = uniform_share(p, goal)
    assert evaluate(p, sizes).seconds <= goal
    shares = np.linspace(0, 1, 401)
    nearest = [{n: min((s for s in v.sizes if s), key=lambda s: abs(s - r * v.sizes[-1])) for n, v in p.variables.items()} for r in shares]
    assert sizes in nearest
    larger = [s for s in nearest if sum(s.values()) > sum(sizes.values())]
    assert all(evaluate(p, s).seconds > goal for s in larger)


@pytest.mark.parametrize("seed", range(4))
def test_mdp_is_the_best_of_all_plans(seed: int) -> None:
    p = problem(seed)
    goal = 0.45 * evaluate(p, largest_sizes(p)).seconds
    best = max((evaluate(p, s).value for s in plans(p) if evaluate(p, s).seconds <= goal), default=0.0)
    assert evaluate(p, choose(find_preset("mdp"), Task(p, MADE), goal)).value >= best * (1 - 1e-3)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("share", [0.5])
def test_every_preset_comes_within_the_goal(name: str, share: float) -> None:
    p = problem(3)
    task = Task(p, MADE, operations=problem(4))
    goal = share * evaluate(p, largest_sizes(p)).seconds
    sizes = within(find_preset(name), task, goal)
    assert evaluate(p, sizes).seconds <= goal
    assert PRESETS[name].blocks or min(sizes.values()) > 0
    exact = evaluate(p, within(find_preset("mdp"), task, goal)).value
    assert evaluate(p, sizes).value <= exact * (1 + 1e-3)  # no rule beats the exact one at its own objective


def test_halp_iterates_because_frozen_inputs_overrate_every_plan() -> None:
    """In one step the frozen inputs leave budget unused; the steps of the paper recover it."""
    p = problem(1)
    goal = 0.5 * evaluate(p, largest_sizes(p)).seconds
    task = Task(p, MADE)
    once, often = (evaluate(p, choose(find_preset("halp") if steps > 1 else _one_step(), task, goal)) for steps in (1, 10))
    assert once.seconds <= often.seconds
    assert once.value <= often.value


def _one_step() -> Preset:
    return replace(find_preset("halp"), steps=1)


def test_what_cannot_be_is_said() -> None:
    p = problem(zero=False)
    with pytest.raises(OptionError, match=r"'hlap'; did you mean halp\?"):
        find_preset("hlap")
    for name in ("mdp", "nvit", "netadapt", "uniform", "flops"):
        with pytest.raises(BudgetError, match="smallest reachable"):
            within(find_preset(name), Task(p, MADE, operations=p), 1e-3, rounds=2)
    with pytest.raises(OptionError, match="counts operations"):
        choose(find_preset("flops"), Task(p, MADE), 50.0)
    assert math.isfinite(evaluate(p, largest_sizes(p)).seconds)
