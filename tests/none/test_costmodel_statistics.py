"""Intervals, the noise gate, and interleaved timing on a clock that the test owns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.costmodel.statistics import ATTEMPTS, Rounds, Timing, interleave, ratio, timing, undisturbed
from billhook.ir.errors import OptionError


@dataclass
class Machine:
    """A clock that advances only by what is called on it."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list[str])
    random: Random = field(default_factory=lambda: Random(1))

    def clock(self) -> float:
        return self.now

    def contender(self, name: str, seconds: Callable[[], float]) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now += seconds()

        return call


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=60), st.sampled_from(["minimum", "median"]))
def test_the_interval_contains_the_statistic_and_lies_within_the_timings(seconds: list[float], statistic: str) -> None:
    found = timing(seconds, statistic)  # type: ignore[arg-type]
    confirmed = [a for a in sorted(seconds) if sum(a <= s <= 1.05 * a for s in seconds) >= 3]
    expected = (confirmed or sorted(seconds))[0] if statistic == "minimum" else np.median(seconds)
    assert found.latency.seconds == pytest.approx(expected)
    assert min(seconds) <= found.latency.low <= found.latency.seconds <= found.latency.high <= max(seconds)
    assert found.percentile(0) == min(seconds)
    assert found.percentile(50) == pytest.approx(np.median(seconds))
    assert found.percentile(90) == pytest.approx(np.percentile(seconds, 90))


@pytest.mark.parametrize("count", [6, 11, 30, 101])
def test_the_interval_of_the_median_covers_the_true_median(count: int) -> None:
    generator = np.random.default_rng(count)
    rows = generator.lognormal(0, 0.5, size=(2000, count))  # true median 1
    covered = [t.low <= 1 <= t.high for t in (timing(list(r)).latency for r in rows)]
    assert 0.935 <= np.mean(covered) <= 0.993  # at least 95%, in steps that a small count makes coarse


def test_the_interval_of_the_minimum_is_that_of_the_bootstrap() -> None:
    generator = np.random.default_rng(0)
    seconds = generator.lognormal(0, 0.02, size=20)
    resampled = generator.choice(seconds, size=(20000, 20)).min(axis=1)
    high = timing(list(seconds), "minimum").latency.high
    assert (resampled <= high).mean() >= 0.95
    assert (resampled < high).mean() < 0.95


def test_a_lone_fast_timing_is_no_latency_but_widens_the_interval() -> None:
    usual = [2.50, 2.51, 2.52, 2.6, 3.0]
    assert timing([*usual, 1.41], "minimum").latency.seconds == 2.50
    assert timing([*usual, 1.41], "minimum").latency.low == 1.41
    assert timing([*usual, 1.41], "minimum").verdict == "too noisy"
    assert timing([*usual, 1.41, 1.42, 1.43], "minimum").latency.seconds == 1.41
    assert timing([1.0, 2.0, 3.0, 4.0], "minimum").latency.seconds == 1.0  # nothing is confirmed: nothing better is known


def test_noise_is_called_noise() -> None:
    assert timing([1.0, 1.001, 1.002] * 5).verdict == "ok"
    assert timing([1.0, 1.5, 0.7] * 5).verdict == "too noisy"
    assert "TOO NOISY" in str(timing([1.0, 1.5, 0.7] * 5))
    assert timing([1.0, 1.0]).verdict == "too noisy"
    assert timing([1.0, 1.5, 0.7] * 5, gate=1.0).verdict == "ok"


@pytest.mark.parametrize("seconds", [[], [0.0, 1.0], [float("nan")], [float("inf")]])
def test_timings_that_say_nothing_are_refused(seconds: list[float]) -> None:
    with pytest.raises(OptionError, match="timings"):
        timing(seconds)


def test_contenders_take_turns_and_the_order_rotates() -> None:
    machine = Machine()
    contenders = {n: machine.contender(n, lambda: 1e-3) for n in "abc"}
    interleave(contenders, Rounds(count=3, limit=3, warmup=1, settle=0, slice=0), machine.clock)
    assert "".join(machine.calls) == "abc" + "abc" + "bca" + "cab"


def test_a_drift_of_the_machine_does_not_bend_the_ratio() -> None:
    machine = Machine()
    contenders = {
        "slow": machine.contender("slow", lambda: 2e-3 * (1 + machine.now)),
        "fast": machine.contender("fast", lambda: 1e-3 * (1 + machine.now)),
    }
    found = interleave(contenders, Rounds(count=40, limit=40, slice=0, settle=0), machine.clock)
    assert found["slow"].percentile(90) > 1.05 * found["slow"].percentile(10)
    quotient = ratio(found["slow"], found["fast"])
    assert quotient.low <= quotient.value <= quotient.high
    assert quotient.value == pytest.approx(2.0, rel=0.005)


def test_short_calls_are_repeated_until_a_slice_is_full() -> None:
    machine = Machine()
    rounds = Rounds(count=2, limit=2, warmup=1, settle=0, slice=1e-4)
    found = interleave({"tiny": machine.contender("tiny", lambda: 1e-6)}, rounds, machine.clock)
    assert len(machine.calls) == pytest.approx(1 + 2 * 100, abs=2)
    assert found["tiny"].latency.seconds == pytest.approx(1e-6)


def test_noise_is_met_with_more_rounds_up_to_the_limit() -> None:
    machine = Machine()
    noisy = machine.contender("noisy", lambda: 1e-3 * machine.random.lognormvariate(0, 1))
    seen: list[tuple[str, int, int]] = []
    found = interleave(
        {"noisy": noisy}, Rounds(count=5, limit=12, slice=0), machine.clock, lambda stage, done, total: seen.append((stage, done, total))
    )
    assert found["noisy"].verdict == "too noisy"
    assert len(found["noisy"].seconds) == 12
    assert seen[-1] == ("measure networks", 12, 12)
    quiet = machine.contender("quiet", lambda: 1e-3)
    assert len(interleave({"quiet": quiet}, Rounds(count=5, limit=12, slice=0), machine.clock)["quiet"].seconds) == 5


def _slowed(*factors: float) -> tuple[Callable[[], dict[str, Timing]], list[float]]:
    """A dense network of 10 s, and a pruned one of 5 s that lies in a cache, where the neighbours do not slow it."""
    left = list(factors)

    def measure() -> dict[str, Timing]:
        factor = left.pop(0)
        return {name: timing([s], "minimum") for name, s in (("dense", 10 * factor), ("pruned", 5.0))}

    return measure, left


def test_a_disturbance_is_waited_for() -> None:
    measure, left = _slowed(1.5, 1.3, 1.01, 9.0)
    assert undisturbed(measure, "dense", 10.0)["dense"].latency.seconds == pytest.approx(10.1)
    assert left == [9.0]


def test_a_lasting_disturbance_leaves_the_least_disturbed_timings() -> None:
    measure, left = _slowed(1.5, 1.2, *[1.4] * ATTEMPTS)
    assert undisturbed(measure, "dense", 10.0)["dense"].latency.seconds == pytest.approx(12.0)
    assert len(left) == 2


def test_rounds_and_ratios_check_their_input() -> None:
    with pytest.raises(OptionError, match="rounds need"):
        Rounds(count=10, limit=5)
    with pytest.raises(OptionError, match="same rounds"):
        ratio(timing([1.0, 1.0]), timing([1.0]))
