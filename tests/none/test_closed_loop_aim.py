"""Aiming the closed loop: where the next plan should be predicted for the budget to be met."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.compiler.aim import aim

SECONDS = st.floats(1e-4, 1.0)


@given(SECONDS, st.floats(0.5, 2.0), SECONDS)
def test_one_network_gives_its_ratio(predicted: float, ratio: float, goal: float) -> None:
    assert aim(goal, [(predicted, predicted * ratio)]) == pytest.approx(goal / ratio)


@given(st.floats(0.8, 1.2), st.floats(0.8, 1.25), st.floats(0.3, 0.9))
def test_a_power_law_is_met_between_two_networks(scale: float, exponent: float, goal: float) -> None:
    tried = [(x, scale * x**exponent) for x in (0.2, 1.0)]
    wanted = scale * goal**exponent
    found = aim(wanted, tried)
    assert scale * found**exponent == pytest.approx(wanted, rel=1e-9)


def test_the_nearest_bracket_counts() -> None:
    tried = [(1.0, 2.0), (0.5, 0.6), (0.45, 0.48), (0.1, 0.05)]
    assert 0.45 < aim(0.5, tried) < 0.5


def test_beyond_all_networks_the_nearest_ratio_is_taken() -> None:
    assert aim(0.3, [(1.0, 1.0), (0.5, 0.6)]) == pytest.approx(0.3 * 0.5 / 0.6)


@pytest.mark.parametrize("near", [(0.500, 0.520), (0.530, 0.519)])
def test_networks_that_differ_by_chance_give_no_slope(near: tuple[float, float]) -> None:
    """Nearly equal latencies with unequal or swapped predictions would send a line anywhere."""
    found = aim(0.51, [(0.52, 0.505), near])
    assert math.isclose(found, 0.52, rel_tol=0.06)


def test_converges_on_a_network_whose_kernels_disturb_each_other() -> None:
    """What is measured is neither proportional to the prediction nor a line, and scatters by a percent."""
    scatter = iter([1.008, 0.992, 1.004])

    def measured(predicted: float) -> float:
        return (0.9 * predicted**0.93 + 0.02) * next(scatter)

    tried, goal = [(1.0, 0.92)], 0.3
    for _ in range(3):
        x = aim(goal, tried)
        tried.append((x, measured(x)))
    assert abs(tried[-1][1] / goal - 1) < 0.015
