"""Measuring over RPC: a tracker and servers on this machine, and everything that can happen to them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_workloads import WorkloadBuilder, conv
from rpc_servers import Processes, processes

import billhook as bh
from billhook.cli import main
from billhook.codegen import lower
from billhook.codegen.cpu.candidate import Candidate, candidate
from billhook.codegen.device import Device
from billhook.codegen.host import host_target
from billhook.codegen.remote import DevicePool
from billhook.compiler.bench import open_device
from billhook.compiler.engine import Engine
from billhook.costmodel.measured import MeasuredCosts
from billhook.costmodel.sample import Conditions
from billhook.costmodel.store import open_store
from billhook.devices import devices_file, make_device, write_devices
from billhook.ir.errors import DeviceError, MeasureError
from billhook.ir.latency import Latency
from billhook.ir.plan import Plan
from billhook.ir.progress import no_progress
from billhook.ir.workload import Workload
from billhook.passes.cut import cut_graph
from tests.support.tiny import batches, example, tiny

TARGET = host_target()
SMALL = conv((1, 16, 4, 4), 16, 3, target=TARGET)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def running() -> Iterator[Processes]:
    """A tracker, and two servers that live as long as the module."""
    with processes() as found:
        found.serve("pair", 2)
        yield found


@pytest.fixture(scope="module")
def pair(running: Processes) -> Device:
    return Device("pair", running.tracker, "pair", timeout=900)


@pytest.fixture(scope="module")
def pool(pair: Device) -> Iterator[DevicePool]:
    with DevicePool(pair, budget=0.005, cold_bytes=1 << 18) as pool:
        yield pool


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, pair: Device) -> Path:
    path = tmp_path_factory.mktemp("db") / "m.sqlite"
    write_devices(devices_file(path), {"pair": pair})
    return path


def first(workload: Workload) -> tuple[Candidate, ...]:
    return lower.candidates(workload, TARGET)[:1]


def softmax() -> Workload:
    """A kernel without a template, whose tensors keep their shapes."""
    b = WorkloadBuilder(TARGET)
    b.call("aten.softmax.int", b.tensor(3, 40), -1, None)
    return b.finish(3, 40)


DEPTHWISE = conv((1, 24, 6, 6), 24, 3, groups=24, target=TARGET)


@pytest.mark.parametrize("workload", [SMALL, DEPTHWISE, softmax()], ids=lambda w: w.anchor.op)
def test_kernels_are_checked_and_timed_on_the_device(pool: DevicePool, workload: Workload) -> None:
    found = pool.measure_candidates(workload, lower.candidates(workload, TARGET)[:2], TARGET)
    assert found.latency.provenance == "device"
    assert 0 < found.latency.low <= found.latency.seconds <= found.latency.high < 1
    assert not found.rejected


def test_bad_candidates_are_rejected_with_the_reason(pool: DevicePool) -> None:
    good, bad = lower.candidates(SMALL, TARGET)[0], candidate("conv", rows=0, columns=1, vectors=1, pixels_outer=0)
    found = pool.measure_candidates(SMALL, (bad, good), TARGET)
    assert [c for c, _ in found.rejected] == [bad]
    with pytest.raises(MeasureError, match="no kernel for"):
        pool.measure_candidates(SMALL, (bad,), TARGET)
    far = replace(TARGET, kind="cuda")
    with pytest.raises(MeasureError, match="no kernel for") as caught:
        pool.measure_candidates(SMALL, (good,), far)
    assert "\n" not in str(caught.value)


def test_a_device_says_what_it_is(pair: Device) -> None:
    with open_device(pair) as bench:
        assert bench.target == TARGET
        assert bench.processor.endswith(", device pair")
        assert bench.workers == 2


def test_a_hanging_kernel_is_rejected_and_its_servers_serve_on(pair: Device, pool: DevicePool) -> None:
    large = conv((1, 512, 112, 112), 512, 3, target=TARGET)  # several runs of 59 GFLOP do not fit into a second
    hasty = DevicePool(replace(pair, timeout=1.0), budget=0.005, grace=60)
    with hasty, pytest.raises(MeasureError, match="took more than 1 s on the device"):
        hasty.measure_candidates(large, first(large), TARGET)
    assert pool.measure_candidates(SMALL, first(SMALL), TARGET).latency.provenance == "device"


def test_servers_that_die_lose_nothing(running: Processes, tmp_path: Path) -> None:
    """One of two is killed while kernels are on both: the other takes all. When that dies too, what was measured is kept."""
    doomed, last = running.serve("mortal", 2)
    workloads = [conv((1, 16, 6, 6), 8 * i, 3, target=TARGET) for i in range(1, 9)]
    killed = threading.Event()

    def kill_at_two(_stage: str, done: int, _total: int) -> None:
        if done >= 2 and not killed.is_set():
            killed.set()
            running.kill(doomed)

    device = Device("mortal", running.tracker, "mortal", timeout=120)
    with DevicePool(device, budget=0.005, grace=1) as pool, open_store(tmp_path / "m.sqlite") as store:
        assert pool.workers == 2

        def measure(workload: Workload, /) -> tuple[Latency, str]:
            return pool.measure_candidates(workload, first(workload), TARGET).latency, "[]"

        costs = MeasuredCosts(store, measure, Conditions("mortal", "x"), pool.workers)
        samples = costs.cost_many(workloads, kill_at_two)
        assert killed.is_set()
        assert [s.failure for s in samples] == [""] * len(workloads)
        assert {s.latency.provenance for s in samples if s.latency} == {"device"}
        running.kill(last)
        with pytest.raises(DeviceError, match="no server is registered as 'mortal'") as caught:
            costs.sample(SMALL)
        assert len(store) == len(workloads)
    assert "\n" not in str(caught.value)
    assert "tvm.exec.rpc_server" in str(caught.value)


def test_a_process_between_us_and_the_device_that_dies_is_replaced(pool: DevicePool) -> None:
    pool.measure_candidates(SMALL, first(SMALL), TARGET)
    for line in pool._lines:
        if line._child is not None:
            line._child._process.kill()
            line._child._process.wait()
    pool.measure_candidates(SMALL, first(SMALL), TARGET)


def test_servers_of_different_processors_are_not_one_device(pair: Device) -> None:
    with DevicePool(pair, budget=0.005) as pool:
        pool._check_equal("model name\t: A\nmodel\t: 1\ncpu MHz\t: 3\n")
        pool._check_equal("model name\t: A\nmodel\t: 1\ncpu MHz\t: 4\n")
        with pytest.raises(DeviceError, match=r"different processors \(A and B\)"):
            pool._check_equal("model name\t: B\nmodel\t: 1\n")


def test_networks_run_on_the_device_and_samples_are_filed_under_it(pair: Device, database: Path) -> None:
    program = bh.trace(tiny(), example())
    with open_device(pair) as bench, Engine(bench.target, database, no_progress, bench=bench) as engine:
        build = engine.build(cut_graph(program, Plan({})), program.example)
        assert build.error < 1e-4
        assert engine.measured > 0
        found = bench.time(build.artifact, [example()])
        (output,) = bench.outputs(build.artifact, [example()])
        assert torch.allclose(output, tiny()(example()), rtol=1e-3, atol=1e-3)
    assert found.latency.provenance == "device"
    assert len(found.seconds) == 30
    with open_store(database) as store:
        (group,) = store.groups()
    assert 0 < group.device == group.samples <= engine.measured  # a kernel that was too noisy is measured again
    assert group.conditions.fingerprint.endswith(", device pair")


def test_a_network_that_fails_on_the_device_is_one_line(pool: DevicePool, tmp_path: Path) -> None:
    (tmp_path / "network.so").write_bytes(b"\x7fELF, or so it says")
    with pytest.raises(MeasureError, match="the network fails on device pair") as caught:
        pool.run(tmp_path / "network.so", [np.zeros(1, np.float32)], 1)
    assert "\n" not in str(caught.value)


def test_the_whole_job_on_a_device(database: Path) -> None:
    result = bh.compile(tiny(), example(), latency="75%", data=batches(), database=database, device="pair")
    assert result.latency.measured.provenance == "device"
    assert set(result.comparison.pruned) == {"billhook"}
    assert "device pair" in result.record().environment["cpu"]
    assert "not on device" in result.comparison.absent["torch eager"]
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in tiny().parameters())


def test_check_says_that_all_is_well(capsys: Capture, database: Path) -> None:
    assert main(["device", "check", "pair", "--db", str(database)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("'pair': 2")
    assert lines[1].endswith(", device pair")
    assert lines[2] == f"target: {TARGET}"
    assert lines[3].endswith("(device)")


def test_a_tracker_that_is_not_there_is_said_before_any_work(tmp_path: Path) -> None:
    database = tmp_path / "m.sqlite"
    write_devices(devices_file(database), {"gone": make_device("gone", "127.0.0.1:1", "k", "llvm", 10)})
    with pytest.raises(DeviceError, match=r"no tracker answers at 127\.0\.0\.1:1 \(Connection refused\)"):
        bh.compile(tiny(), example(), database=database, device="gone")
    assert not database.exists()


def test_a_device_without_servers_is_said_before_any_work(running: Processes, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no server is registered as 'void'"):
        open_device(Device("void", running.tracker, "void", timeout=5))
