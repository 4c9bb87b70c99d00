"""OpenCL: kernels, networks and bundles on the installed driver (PoCL) against torch, and what the limits of a GPU refuse."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cuda_networks import attention, conv, layer_norm, linear, max_pool, one_kernel, residual_network
from targets import Cnn, Vit, case, error, needs_opencl

from billhook.codegen.backend import backend_of, target_named
from billhook.codegen.bundle import BundleContent, verify, write_bundle
from billhook.codegen.bundle_vector import TestVector
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.opencl.build import build, candidates
from billhook.codegen.opencl.devices import NAMED, opencl_target
from billhook.codegen.opencl.host_parts import build_host
from billhook.codegen.opencl.program import load_program
from billhook.codegen.opencl.session import Session
from billhook.codegen.opencl.timer import OpenClTimer
from billhook.ir.errors import BundleError, DeviceError, MeasureError, OptionError
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.reference import run_network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

HERE = opencl_target()
KERNELS = {
    "conv with residual": conv(tail=True),
    "strided conv of a batch": conv(batch=3, stride=2),
    "pointwise conv, odd widths": conv(channels=13, out=7, window=1),
    "depthwise conv": conv(channels=12, out=12, groups=12),
    "matrix product": linear(50),
    "attention, eight launches": attention(),
    "layer norm": layer_norm(),
    "max pool": max_pool(),
}


def first(network: Network, target: Target, number: int = 0) -> dict[Workload, Candidate]:
    """The candidate of this number, or the last one, for every workload."""
    chosen: dict[Workload, Candidate] = {}
    for kernel in network.kernels:
        found = candidates(kernel.workload, target)
        chosen[kernel.workload] = found[min(number, len(found) - 1)]
    return chosen


@needs_opencl
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("number", [0, 3])
def test_kernels_equal_torch(name: str, number: int) -> None:
    network = one_kernel(KERNELS[name])
    program = build(network, first(network, HERE, number), HERE)
    inputs = tuple(torch.randn(t.shape) for _, t in network.inputs)
    (found,) = Session(program).run(*inputs)
    assert error(found, run_network(network, inputs)[0]) < 1e-5


@needs_opencl
def test_several_launches_share_kernels_and_memory() -> None:
    network = residual_network()
    program = build(network, first(network, HERE), HERE)
    assert program.launches[0].symbol == program.launches[1].symbol, "equal kernels are compiled once"
    inputs = tuple(torch.randn(t.shape) for _, t in network.inputs)
    for found, expected in zip(Session(program).run(*inputs), run_network(network, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_opencl
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize("make", [Cnn, Vit])
def test_bundles_equal_torch_with_and_without_python(make: type[torch.nn.Module], pruned: bool, tmp_path: Path) -> None:
    given = case(make, HERE, pruned=pruned)
    backend = backend_of(HERE)
    built = backend.build(given.network, first(given.network, HERE), HERE)
    assert error(built.run(*given.inputs)[0], given.expected) < 1e-5
    vector = TestVector((given.inputs[0].numpy(),), (given.expected.numpy(),))
    write_bundle(tmp_path / "b", BundleContent(built, HERE, given.program, Plan({}), given.model, vector))
    assert verify(tmp_path / "b").ok
    host = build_host(tmp_path / "b", tmp_path / "build")
    done = subprocess.run([host, tmp_path / "b"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "ok" in done.stdout


@needs_opencl
def test_the_host_refuses_what_is_broken(tmp_path: Path) -> None:
    network = one_kernel(linear(3))
    program = build(network, first(network, HERE), HERE)
    (tmp_path / "lib").mkdir()
    program.save(tmp_path / "lib")
    assert torch.equal(next(iter(load_program(tmp_path / "lib").constants.values())), next(iter(program.constants.values())))
    weights = tmp_path / "lib" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(BundleError, match=r"damaged: weights\.bin is too short"):
        load_program(tmp_path / "lib")
    (tmp_path / "lib" / "kernels.cl").unlink()
    with pytest.raises(BundleError, match=r"has no kernels\.cl"):
        load_program(tmp_path / "lib")


@needs_opencl
def test_tuning_rejects_wrong_and_slow_candidates_and_goes_on() -> None:
    workload = linear(50)
    good = candidates(workload, HERE)[0]
    alien = Candidate("conv", (("rows", 1),))
    timer = OpenClTimer(HERE, "host", budget=0.01)
    try:
        found = timer.measure_candidates(workload, (alien, good))
    finally:
        timer.close()
    assert found.candidate == good
    assert found.latency.provenance == "host"
    assert "is not one of OpenCL's" in found.rejected[0][1]
    hurried = OpenClTimer(HERE, "host", timeout=0.01)
    with pytest.raises(MeasureError, match=r"took more than 0\.01 s"):
        hurried.measure_candidates(workload, (good,))
    assert hurried.close() == 0, "a candidate that hangs takes its process with it"


@needs_opencl
def test_a_vanished_device_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyopencl

    network = one_kernel(linear(3))
    session = Session(build(network, first(network, HERE), HERE))

    def gone(*_: object) -> None:
        raise pyopencl.RuntimeError("clEnqueueNDRangeKernel failed: DEVICE_NOT_AVAILABLE")

    monkeypatch.setattr(pyopencl, "enqueue_nd_range_kernel", gone)
    with pytest.raises(DeviceError, match="is gone while running the network"):
        session.run(torch.randn(3, 48))


def test_named_gpus_are_limits() -> None:
    mali = target_named("opencl:mali-g52")
    network = one_kernel(conv(tail=True))
    program = build(network, first(network, mali), mali)
    assert max(launch.threads for launch in program.launches) <= NAMED["mali-g52"].group
    assert program.local_bytes <= NAMED["mali-g52"].local_bytes
    with pytest.raises(DeviceError, match="Mali-G52 is not on this machine"):
        backend_of(mali).timer(mali, None)
    with pytest.raises(OptionError, match="mali-g71"):
        target_named("opencl:voodoo")
    assert "work items of a group 384" in str(backend_of(mali).constraints(mali))


def test_what_exceeds_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(NAMED["any"], name="small GPU", buffer_bytes=1000)
    monkeypatch.setitem(NAMED, "any", small)
    target = opencl_target("any")
    network = one_kernel(conv(tail=True))
    with pytest.raises(MeasureError, match=r"takes \d+ bytes, one buffer of small GPU at most 1000"):
        build(network, first(network, target), target)
    from billhook.codegen.gpu.hardware import check_launches

    launches = build(network, first(network, opencl_target("mali-g71")), opencl_target("mali-g71")).launches
    with pytest.raises(MeasureError, match=r"work-groups of \d+ work-items, small GPU allows 16"):
        check_launches(launches, 0, replace(small, group=16))
    with pytest.raises(MeasureError, match="bytes of local memory"):
        check_launches(launches, 1 << 20, small)
    with pytest.raises(MeasureError, match="is not one of OpenCL's"):
        build(network, {k.workload: Candidate("conv") for k in network.kernels}, target)


@pytest.mark.parametrize(("kind", "word"), [("metal", "kernel void"), ("webgpu", "@compute")])
def test_metal_and_webgpu_are_emitted_and_labelled(kind: str, word: str, tmp_path: Path) -> None:
    from billhook.codegen.gpu.emit import emit

    *sources, launches = emit(residual_network(), kind, tmp_path / kind)
    assert all(word in path.read_text() for path in sources)
    assert all(path.read_text().startswith("// emitted, not built") for path in sources)
    assert '"status": "emitted, not built"' in launches.read_text()
    with pytest.raises(OptionError, match="use one of metal, webgpu"):
        emit(residual_network(), "glide", tmp_path / "x")
