"""Calibration from one, two and more networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.costmodel.calibration import Calibration, calibrate
from billhook.ir.errors import OptionError
from billhook.ir.latency import Latency


def pair(predicted: float, measured: float, noise: float = 0.005) -> tuple[Latency, Latency]:
    expected = Latency(predicted, predicted * 0.98, predicted * 1.02, "predicted")
    return expected, Latency(measured, measured * (1 - noise), measured * (1 + noise))


def test_without_networks_nothing_changes() -> None:
    assert calibrate([]) == Calibration(1.0, 0.0, 0.0)
    predicted = Latency(2e-3, 1e-3, 3e-3, "predicted")
    assert calibrate([]).apply(predicted) == predicted


def test_one_network_gives_a_scale_and_doubt_in_proportion_to_the_correction() -> None:
    found = calibrate([pair(10e-3, 11e-3)])
    assert found.scale == pytest.approx(1.1)
    assert found.offset == 0
    least = calibrate([pair(10e-3, 10e-3)]).spread
    assert 0.05 < least < 0.15  # nothing is known but what other networks were missed by
    assert found.spread == pytest.approx(least)
    assert calibrate([pair(10e-3, 20e-3)]).spread == pytest.approx((1 - 1 / 2) / 2)
    assert calibrate([pair(10e-3, 10e-3, noise=0.2)]).spread == pytest.approx(0.2)


def test_two_networks_apart_give_a_line_through_both() -> None:
    found = calibrate([pair(10e-3, 11.3e-3), pair(5e-3, 5.8e-3)])
    assert found.scale == pytest.approx(1.1)
    assert found.offset == pytest.approx(0.3e-3)
    for predicted, measured in ((10e-3, 11.3e-3), (5e-3, 5.8e-3)):
        calibrated = found.apply(Latency(predicted, predicted, predicted, "predicted"))
        assert calibrated.seconds == pytest.approx(measured)
        assert calibrated.low < measured < calibrated.high
        assert calibrated.provenance == "predicted"


def test_networks_of_equal_size_say_nothing_about_a_slope() -> None:
    found = calibrate([pair(10e-3, 11e-3), pair(10.5e-3, 11.3e-3)])
    assert found.offset == 0
    assert found.scale == pytest.approx((1.1 + 11.3 / 10.5) / 2)


def test_one_bad_measurement_in_four_is_outvoted_but_shows_in_the_spread() -> None:
    good = [pair(p, 1.05 * p + 0.2e-3) for p in (4e-3, 7e-3, 10e-3)]
    found = calibrate([*good, pair(5.5e-3, 9e-3)])
    assert found.scale == pytest.approx(1.05, rel=0.1)
    assert found.apply(Latency(8e-3, 8e-3, 8e-3, "predicted")).seconds == pytest.approx(8.6e-3, rel=0.05)
    assert found.spread > 0.2
    assert calibrate(good).spread < 0.1


def test_an_implausible_line_falls_back_to_a_scale() -> None:
    falling = calibrate([pair(10e-3, 5e-3), pair(5e-3, 6e-3)])
    assert falling.offset == 0
    assert falling.scale > 0
    assert falling.spread > 0.2


def test_networks_that_take_no_time_are_refused() -> None:
    with pytest.raises(OptionError, match="positive"):
        calibrate([(Latency(0, 0, 0, "predicted"), Latency(1, 1, 1))])


@pytest.mark.parametrize("deviation", [0.01, 0.025, 0.05])
@pytest.mark.parametrize("known", [4, 8])
def test_about_nineteen_of_twenty_networks_are_within_the_spread(deviation: float, known: int) -> None:
    random = np.random.default_rng(0)
    inside: list[bool] = []
    for _ in range(400):
        predicted = random.uniform(2e-3, 10e-3, known + 1)
        measured = 1.1 * predicted * (1 + deviation * random.standard_normal(known + 1))
        found = calibrate([pair(p, m, 0.0) for p, m in zip(predicted[:-1], measured[:-1], strict=True)])
        asked = found.apply(Latency(predicted[-1], predicted[-1], predicted[-1], "predicted"))
        inside.append(asked.low <= measured[-1] <= asked.high)
    assert np.mean(inside) > 0.85


@given(st.lists(st.tuples(st.floats(1e-4, 1e-1), st.floats(0.5, 2.0)), min_size=1, max_size=6), st.floats(1e-5, 1.0))
def test_calibrated_latencies_are_valid_and_ordered(networks: list[tuple[float, float]], predicted: float) -> None:
    found = calibrate([pair(p, p * r) for p, r in networks])
    calibrated = found.apply(Latency(predicted, predicted * 0.9, predicted * 1.1, "predicted"))
    assert 0 <= calibrated.low <= calibrated.seconds <= calibrated.high
    assert found.apply(Latency(2 * predicted, 2 * predicted, 2 * predicted, "predicted")).seconds >= calibrated.seconds
