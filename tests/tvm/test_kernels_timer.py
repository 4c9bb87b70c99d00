"""The timer measures, rejects wrong, crashing and hanging candidates with their reasons, and survives them."""

from collections.abc import Iterator

import pytest
from kernel_workloads import ZEN4, conv

from billhook.codegen import lower
from billhook.codegen.cpu.candidate import candidate, candidate_from_json, candidate_to_json
from billhook.codegen.host import cpu_target, host_target
from billhook.codegen.timer import ChildTimer, KernelTimer, Measured
from billhook.ir.errors import DeviceError, MeasureError
from billhook.ir.workload import Call, Ref, TensorType, Workload

SMALL = conv((1, 16, 4, 4), 16, 3)


@pytest.fixture(scope="module")
def timer() -> Iterator[KernelTimer]:
    with KernelTimer(host_target(), budget=0.005, timeout=60.0) as timer:
        yield timer


def test_measures_every_workload_and_reports_each(timer: KernelTimer) -> None:
    seen: list[Measured] = []
    results = timer.measure_many([SMALL, conv((1, 16, 8, 8), 16, 1)], seen.append)
    assert tuple(seen) == results
    for result in results:
        assert 0 < result.latency.low <= result.latency.seconds <= result.latency.high
        assert result.latency.provenance == "host"
        assert result.candidate in lower.candidates(result.workload, host_target())


def test_bad_candidates_are_rejected_with_the_reason(timer: KernelTimer) -> None:
    good = lower.candidates(SMALL, host_target())[0]
    bad = candidate("conv", rows=0, columns=1, vectors=1, pixels_outer=0)  # a tile of no rows: the lowering raises
    result = timer.measure_candidates(SMALL, (bad, good))
    assert result.candidate == good
    assert [c for c, _ in result.rejected] == [bad]


def test_crash_is_survived(timer: KernelTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    timer.measure(SMALL)
    child = timer._child
    assert child is not None
    child._process.kill()
    child._process.wait()
    assert timer.measure(SMALL).workload == SMALL


def test_a_process_that_does_not_start_is_no_fault_of_the_kernel() -> None:
    """Nothing is stored of the kernel, which would count as one that fails ever after."""
    timer = ChildTimer("billhook.no_such_module", {}, "the measuring process", budget=0.005, timeout=60.0)
    with pytest.raises(DeviceError, match="the measuring process does not start; run `billhook doctor`"):
        timer.measure_candidates(SMALL, lower.candidates(SMALL, host_target()))


def test_hang_is_rejected() -> None:
    large = conv((1, 256, 56, 56), 256, 3)
    with KernelTimer(host_target(), timeout=0.01) as timer, pytest.raises(MeasureError, match="took more than"):
        timer.measure(large)


def test_uncovered_workload_is_one_clear_error(timer: KernelTimer) -> None:
    strange = TensorType((2, 3), "complex64")
    workload = Workload((strange,), ("activation",), (Call("aten.angle.default", (Ref(0),)),), strange)
    with pytest.raises(MeasureError, match="no kernel for") as caught:
        timer.measure(workload)
    assert "\n" not in str(caught.value)


def test_candidates_round_trip() -> None:
    for item in lower.candidates(SMALL, ZEN4):
        assert candidate_from_json(candidate_to_json(item)) == item


def test_targets_of_known_machines() -> None:
    avx512 = frozenset({"avx512f", "avx2", "fma"})
    zen4 = cpu_target("znver4", avx512, "x86_64", 1)
    intel = cpu_target("icelake-server", avx512, "x86_64", 1)
    assert (zen4.lanes, zen4.fine_lanes, zen4.registers) == (16, 8, 32)
    assert (intel.lanes, intel.fine_lanes) == (16, 16)
    assert cpu_target("haswell", frozenset({"avx2", "fma"}), "x86_64", 1).registers == 16
    assert cpu_target("neoverse-n1", frozenset(), "aarch64", 1).lanes == 4


def test_work_that_no_schedule_saves() -> None:
    winograd = {dict(c.params)["m"]: c for c in lower.candidates(SMALL, ZEN4) if c.template == "winograd"}
    direct = next(c for c in lower.candidates(SMALL, ZEN4) if c.template == "conv")
    assert lower.multiplications(SMALL, direct) == 16 * 16 * 10 * 10  # 4 positions x 3 taps, less one tap at either end
    assert lower.multiplications(SMALL, winograd[4]) == 16 * 16 * 36
    assert lower.multiplications(SMALL, winograd[2]) == 16 * 16 * 4 * 16


def test_hopeless_candidates_are_not_built() -> None:
    direct = next(c for c in lower.candidates(SMALL, host_target()) if c.template == "conv")
    with KernelTimer(host_target(), budget=0.005) as timer:
        found = timer._time(SMALL, direct, 1e-12)
    assert isinstance(found, str)
    assert "at the machine's peak" in found
