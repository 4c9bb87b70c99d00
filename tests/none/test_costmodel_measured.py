"""Measured costs: nothing is measured twice, nothing is lost, failures are remembered."""

import threading
from pathlib import Path

import pytest
from synthetic_kernels import CountingMeasure, conv, true_seconds

from billhook.costmodel.measured import MeasuredCosts
from billhook.costmodel.sample import Conditions, Sample
from billhook.costmodel.store import open_store
from billhook.ir.errors import MeasureError
from billhook.ir.latency import Latency
from billhook.ir.workload import Workload

HERE = Conditions("machine", "level")
WORKLOADS = [conv(ci, 32) for ci in (8, 16, 24, 32, 8)]


def test_a_second_run_measures_nothing(tmp_path: Path) -> None:
    measure = CountingMeasure()
    for run in range(2):
        with open_store(tmp_path / "s.db") as store:
            samples = MeasuredCosts(store, measure, HERE).cost_many(WORKLOADS)
        assert [s.workload for s in samples] == WORKLOADS[:4]
        assert [s.latency and s.latency.seconds for s in samples] == [true_seconds(w) for w in WORKLOADS[:4]]
        assert len(measure.asked) == 4, f"run {run}"


def test_a_sample_that_is_no_longer_usable_is_measured_again_and_replaced(tmp_path: Path) -> None:
    measure = CountingMeasure()
    with open_store(tmp_path / "s.db") as store:
        MeasuredCosts(store, measure, HERE).cost_many(WORKLOADS)
        costs = MeasuredCosts(store, measure, HERE, usable=lambda sample: sample.workload != WORKLOADS[1])
        assert costs.known(WORKLOADS[1]) is None
        costs.cost_many(WORKLOADS)
        assert measure.asked == [*WORKLOADS[:4], WORKLOADS[1]]
        assert len(store) == 4
        assert costs.reuse.found == 3


def test_an_interrupted_run_keeps_its_samples_and_goes_on(tmp_path: Path) -> None:
    measure = CountingMeasure()

    def interrupt(workload: Workload, /) -> tuple[Latency, str]:
        if len(measure.asked) == 2:
            raise KeyboardInterrupt
        return measure(workload)

    with open_store(tmp_path / "s.db") as store, pytest.raises(KeyboardInterrupt):
        MeasuredCosts(store, interrupt, HERE).cost_many(WORKLOADS)
    seen: list[tuple[str, int, int]] = []
    with open_store(tmp_path / "s.db") as store:
        assert len(store) == 2
        costs = MeasuredCosts(store, measure, HERE)
        costs.cost_many(WORKLOADS, lambda stage, done, total: seen.append((stage, done, total)), "kernels")
    assert measure.asked == WORKLOADS[:4]
    assert seen == [("kernels", done, 4) for done in (2, 3, 4)]


def test_several_kernels_are_measured_at_once_and_stored_from_one_thread(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=30)

    def measure(workload: Workload, /) -> tuple[Latency, str]:
        together.wait()  # passes only when two measure at the same time
        if workload == WORKLOADS[3]:
            raise MeasureError("no template covers it")
        return CountingMeasure()(workload)

    with open_store(tmp_path / "s.db") as store:
        samples = MeasuredCosts(store, measure, HERE, 2).cost_many(WORKLOADS)
        assert [s.workload for s in samples] == WORKLOADS[:4]
        assert [bool(s.failure) for s in samples] == [False, False, False, True]
        assert len(store) == 4


def test_an_interrupt_among_several_workers_keeps_what_was_done(tmp_path: Path) -> None:
    measured: list[Workload] = []

    def measure(workload: Workload, /) -> tuple[Latency, str]:
        measured.append(workload)
        return CountingMeasure()(workload)

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    many = [conv(8 * i, 32) for i in range(1, 40)]
    with open_store(tmp_path / "s.db") as store:
        with pytest.raises(KeyboardInterrupt):
            MeasuredCosts(store, measure, HERE, 2).cost_many(many, interrupt)
        assert len(store) == 3
    before = len(measured)
    with open_store(tmp_path / "s.db") as store:
        MeasuredCosts(store, measure, HERE, 2).cost_many(many)
        assert len(store) == 39
    assert len(measured) == before + 36


def test_a_failure_is_kept_with_its_reason_and_not_repeated(tmp_path: Path) -> None:
    measure = CountingMeasure(refuse=lambda w: w == WORKLOADS[1])
    for _ in range(2):
        with open_store(tmp_path / "s.db") as store:
            costs = MeasuredCosts(store, measure, HERE)
            samples = costs.cost_many(WORKLOADS)
            with pytest.raises(MeasureError, match="no template covers it"):
                costs.cost(WORKLOADS[1])
        assert [bool(s.failure) for s in samples] == [False, True, False, False]
    assert len(measure.asked) == 4
    with open_store(tmp_path / "s.db") as store:
        store.forget_failures(HERE)
        MeasuredCosts(store, CountingMeasure(), HERE).cost(WORKLOADS[1])


def test_other_errors_are_not_taken_for_failed_kernels(tmp_path: Path) -> None:
    def broken(_: Workload, /) -> tuple[Latency, str]:
        raise ZeroDivisionError

    with open_store(tmp_path / "s.db") as store:
        with pytest.raises(ZeroDivisionError):
            MeasuredCosts(store, broken, HERE).sample(WORKLOADS[0])
        assert len(store) == 0


def test_noisy_measurements_are_repeated_and_the_narrowest_is_kept(tmp_path: Path) -> None:
    answers = [Latency(3e-3, 1e-3, 5e-3), Latency(2e-3, 1e-3, 3e-3), Latency(4e-3, 1e-3, 9e-3)]

    def measure(_: Workload, /) -> tuple[Latency, str]:
        return answers[len(asked)], str(asked.append(None))

    asked: list[None] = []
    with open_store(tmp_path / "s.db") as store:
        sample = MeasuredCosts(store, measure, HERE, gate=0.2, attempts=3).sample(WORKLOADS[0])
    assert sample.latency == answers[1]
    assert len(asked) == 3
    answers[0] = Latency(1e-3, 0.95e-3, 1.1e-3)
    asked.clear()
    with open_store(tmp_path / "other.db") as store:
        MeasuredCosts(store, measure, HERE, gate=0.2, attempts=3).sample(WORKLOADS[0])
    assert len(asked) == 1


def test_kernels_that_stay_too_noisy_are_named(tmp_path: Path) -> None:
    def measure(workload: Workload, /) -> tuple[Latency, str]:
        noise = 0.3 if workload == WORKLOADS[1] else 0.01
        return Latency(1e-3, 1e-3 * (1 - noise), 1e-3 * (1 + noise)), "[]"

    for _ in range(2):  # as they are measured, and as they are found again
        with open_store(tmp_path / "s.db") as store:
            costs = MeasuredCosts(store, measure, HERE)
            costs.known(WORKLOADS[1])
            assert costs.noisy == ()  # nothing was asked for yet
            costs.cost_many(WORKLOADS)
            assert [s.workload for s in costs.noisy] == [WORKLOADS[1]]


def test_a_sample_is_a_latency_or_a_failure() -> None:
    with pytest.raises(ValueError, match="either"):
        Sample(WORKLOADS[0], HERE, None, "", "now")
