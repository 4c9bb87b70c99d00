"""Weighing axes by what the plans that they lead to lose."""

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pytest

from billhook.ir.errors import OptionError
from billhook.passes.saliency import Floats
from billhook.passes.worth_descent import check_trials, descend

Worth = Mapping[str, Floats]
WHOLE = 8


def concave(**slopes: float) -> dict[str, Floats]:
    return {name: slope * np.sqrt(np.arange(WHOLE + 1.0)) for name, slope in slopes.items()}


def within(total: int) -> Callable[[Worth], dict[str, int]]:
    """The even sizes of the largest worth that add up to a total at most."""

    def sizes(worth: Worth) -> dict[str, int]:
        plans = [dict(zip(worth, p, strict=True)) for p in product(range(0, WHOLE + 1, 2), repeat=len(worth)) if sum(p) <= total]
        return max(plans, key=lambda plan: sum(float(worth[n][s]) for n, s in plan.items()))

    return sizes


def test_a_plan_that_loses_less_is_reached_over_several_steps() -> None:
    best = {"a": 2, "b": 8, "c": 4}
    start = concave(a=1.0, b=0.2, c=1.0)

    def loss(sizes: Mapping[str, int]) -> float:
        return float(sum((sizes[n] - best[n]) ** 2 for n in best))

    sizes = within(14)
    found = descend(start, sizes, loss)
    assert loss(sizes(start)) >= 50
    assert loss(sizes(found)) <= 10
    assert all(loss(sizes({**found, n: f * found[n]})) >= loss(sizes(found)) for n in best for f in (0.5, 2.0))


def test_an_axis_that_is_gone_is_kept_where_that_loses_less() -> None:
    sizes = within(8)
    start = concave(a=1.0, b=1.0, gone=1e-3)
    found = descend(start, sizes, lambda s: 1.0 if s["gone"] == 0 else 0.1)
    assert sizes(start)["gone"] == 0
    assert sizes(found)["gone"] > 0


def test_an_axis_counts_so_much_more_that_the_plan_is_another() -> None:
    sizes = within(WHOLE)
    start = {"a": np.arange(WHOLE + 1.0), "b": 0.2 * np.arange(WHOLE + 1.0)}
    found = descend(start, sizes, lambda s: 0.5 if s["b"] == WHOLE else 1.0)
    assert sizes({**start, "b": 4 * start["b"]}) == sizes(start) == {"a": WHOLE, "b": 0}
    assert sizes(found) == {"a": 0, "b": WHOLE}


def test_no_more_than_the_trials_are_judged_and_none_twice() -> None:
    judged: list[tuple[int, ...]] = []
    told: list[tuple[int, int]] = []

    def random(sizes: tuple[int, ...]) -> float:
        return float(np.random.default_rng(sizes).random())

    def loss(sizes: Mapping[str, int]) -> float:
        judged.append(tuple(sizes.values()))
        return random(judged[-1])

    start = concave(a=1.0, b=0.7, c=0.3, d=0.5)
    found = descend(start, within(20), loss, trials=5, progress=lambda _, done, total: told.append((done, total)))
    assert len(judged) == 6  # the start, and the trials
    assert len(set(judged)) == len(judged)
    assert told == [(n, 5) for n in range(6)]
    assert tuple(within(20)(found).values()) == min(judged, key=random)


@pytest.mark.parametrize("gain", [0.0, 5e-4])
def test_without_a_gain_nothing_changes(gain: float) -> None:
    start = concave(a=1.0, b=0.5)
    losses = iter([1.0, *[1.0 - gain] * 99])
    assert descend(start, within(8), lambda _: next(losses)) is start


def test_no_trials_leave_the_worth_as_it_is_and_fewer_are_refused() -> None:
    start = concave(a=1.0, b=0.5)
    judged: list[int] = []
    assert descend(start, within(8), lambda sizes: judged.append(sizes["a"]) or 1.0, trials=check_trials(0)) is start
    assert len(judged) == 1
    with pytest.raises(OptionError, match="give 0 or more"):
        check_trials(-1)
