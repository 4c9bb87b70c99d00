"""Aiming the closed loop: where the next plan should be predicted for the budget to be met."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.compiler.aim import aim

SECONDS = st.floats(1e-4, 1.0)


@given(SECONDS, st.floats(0.5, 2.0), SECONDS)
def test_one_network_gives_its_ratio(predicted: float, ratio: float, goal: float) -> None:
    assert aim(goal, [(predicted, predicted * ratio)]) == pytest.approx(goal / ratio)


@given(st.floats(0.8, 1.2), st.floats(0.8, 1.25), st.floats(0.3, 0.9))
def test_a_power_law_is_nearly_met_between_two_networks(scale: float, exponent: float, goal: float) -> None:
    tried = [(x, scale * x**exponent) for x in (0.2, 1.0)]
    wanted = scale * goal**exponent
    found = aim(wanted, tried)
    assert scale * found**exponent == pytest.approx(wanted, rel=0.03)


def test_near_networks_count_and_far_ones_hardly() -> None:
    near = [(0.52, 0.505), (0.50, 0.495)]
    alone, among = aim(0.5, near), aim(0.5, [(1.0, 1.3), *near])
    assert among == pytest.approx(alone, rel=0.005)


def test_networks_that_scatter_are_averaged() -> None:
    """Equal predictions of unequal latencies: a line through the two would be vertical."""
    assert aim(0.5, [(0.5, 0.51), (0.5, 0.49)]) == pytest.approx(0.5, rel=2e-3)
    assert 0.49 < aim(0.505, [(0.505, 0.50), (0.50, 0.51)]) < 0.51  # nor one that falls


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
