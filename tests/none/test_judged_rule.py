"""Our allocation in the closed loop where plans can be judged."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest

from billhook.compiler.judged import JudgedRule
from billhook.ir.errors import BudgetError
from billhook.passes.allocate import Factor, Problem, Variable, evaluate, solve
from billhook.passes.judge import Judge

SIZES = tuple(range(1, 101))
PROBLEM = Problem({"a": Variable(SIZES, np.arange(1.0, 101.0))}, (Factor("kernel", ("a",), np.arange(1.0, 101.0)),), 0.0)


def ruled(losses: Mapping[int, float]) -> JudgedRule:
    """A rule whose judge knows the losses of sizes."""
    return JudgedRule({}, cast("Judge", lambda _, sizes: losses[sizes["a"]]))


@pytest.mark.parametrize(("losses", "expected"), [({80: 2.0, 79: 1.0, 78: 1.5}, 79), ({80: 1.0, 79: 1.0, 78: 1.0}, 80)])
def test_of_plans_just_below_the_goal_the_one_that_loses_least(losses: dict[int, float], expected: int) -> None:
    found = ruled(losses)(PROBLEM, 80.0)
    assert found.sizes == {"a": expected}
    assert found.seconds == evaluate(PROBLEM, found.sizes).seconds == expected
    assert found.budget == 80.0
    assert found.bound == solve(PROBLEM, 80.0).bound
    assert found.gap == pytest.approx((80 - expected) / 80, abs=1e-9)


def test_what_nothing_is_fast_enough_for_is_left_out() -> None:
    assert ruled({1: 1.0})(PROBLEM, 1.0).sizes == {"a": 1}
    with pytest.raises(BudgetError):
        ruled({})(PROBLEM, 0.5)


def test_a_fitter_gains_by_what_is_lost() -> None:
    from billhook.compiler.fit import Fitter, Values

    fitter: Any = Fitter.__new__(Fitter)
    small, large = solve(PROBLEM, 10.0), solve(PROBLEM, 20.0)
    fitter.values = Values({}, {}, cast("Judge", lambda _, sizes: float(sizes["a"])))
    assert fitter.gain(small) > fitter.gain(large)
    fitter.values = Values({}, {})
    assert fitter.gain(small) < fitter.gain(large)
