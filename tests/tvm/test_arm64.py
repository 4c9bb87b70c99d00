"""arm64: bundles of dense and pruned networks under qemu against torch, static estimates, the RPC server, and what is refused."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cuda_networks import conv, linear
from kernel_workloads import WorkloadBuilder
from rpc_servers import Processes, free_port, processes
from targets import Cnn, Vit, case, need

from billhook.codegen import lower
from billhook.codegen.arm import toolchain
from billhook.codegen.arm.emulate import build_arm_runner, emulated
from billhook.codegen.arm.estimate import estimate, inner_loops, pipeline_cycles
from billhook.codegen.arm.server_build import build_server
from billhook.codegen.arm.targets import arm_target
from billhook.codegen.arm.timer import StaticTimer
from billhook.codegen.backend import backend_of, target_named
from billhook.codegen.bundle import BundleContent, verify, write_bundle
from billhook.codegen.bundle_vector import TestVector
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.device import Device
from billhook.codegen.remote import DevicePool
from billhook.ir.errors import BundleError, ToolchainError
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.target import Target
from billhook.ir.workload import Workload

needs_cross = need(toolchain.COMPILER, "g++-aarch64-linux-gnu")
needs_qemu = need(toolchain.EMULATOR, "qemu-user")
needs_mca = need("llvm-mca", "llvm")


@pytest.fixture(scope="session")
def runtime() -> tuple[Path, ...]:
    """TVM's arm64 libraries; without them (offline, nothing kept) the tests that run them are skipped with that reason."""
    try:
        return toolchain.arm_runtime()
    except ToolchainError as reason:
        pytest.skip(str(reason))


def first(network: Network, target: Target) -> dict[Workload, Candidate]:
    return {k.workload: lower.candidates(k.workload, target)[0] for k in network.kernels}


@needs_cross
@needs_qemu
@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize("make", [Cnn, Vit])
def test_bundles_equal_torch_under_emulation(make: type[torch.nn.Module], pruned: bool, tmp_path: Path) -> None:
    target = target_named("arm64")
    given = case(make, target, pruned=pruned)
    built = backend_of(target).build(given.network, first(given.network, target), target)
    vector = TestVector((given.inputs[0].numpy(),), (given.expected.numpy(),), tolerance=1e-5)
    bundle = tmp_path / "b"
    write_bundle(bundle, BundleContent(built, target, given.program, Plan({}), given.model, vector))
    found = verify(bundle, lambda _: pytest.fail("emulated runs are not timed"))
    assert found.ok
    assert found.max_relative_error > 0, "the arm64 code rounds like its own, not like torch"
    assert found.manifest.target.architecture == "aarch64"
    program = build_arm_runner(bundle, tmp_path / "build")
    done = emulated(program, [bundle], bundle / "lib")
    assert (done.returncode, done.stderr) == (0, "")
    (bundle / "test" / "output0.bin").write_bytes((given.expected + 1).numpy().tobytes())
    assert emulated(program, [bundle], bundle / "lib").returncode == 1, "the runner compares"


@needs_cross
def test_a_library_of_another_architecture_is_refused(tmp_path: Path, runtime: tuple[Path, ...]) -> None:
    import tvm.libinfo

    from billhook.codegen.bundle_runtime import add_runtime

    (tmp_path / "lib").mkdir()
    here = Path(tvm.libinfo.find_libtvm_runtime())
    with pytest.raises(BundleError, match="is for x86_64, the bundle for aarch64"):
        add_runtime(tmp_path, "aarch64", (here,))
    with pytest.raises(BundleError, match="is for aarch64, the bundle for x86_64"):
        add_runtime(tmp_path, "x86_64", runtime)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for ask, package in ((toolchain.cross_compiler, "g\\+\\+-aarch64-linux-gnu"), (toolchain.emulator, "qemu-user")):
        with pytest.raises(ToolchainError, match=package):
            ask()
    with pytest.raises(ToolchainError, match="llvm-mca"):
        pipeline_cycles(["fmla v0.4s, v1.4s, v2.4s"], "neoverse-n1")

    def offline(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no route to the index\n")

    monkeypatch.setattr(subprocess, "run", offline)
    with pytest.raises(ToolchainError, match=r"cannot be downloaded.*no route to the index.*go online once"):
        toolchain.arm_runtime(tmp_path)


def test_inner_loops_are_found_in_assembly() -> None:
    text = ".La:\n\tmov x0, x1\n.Lb:\n\tfmla v0.4s, v1.4s, v2.4s\n\tsubs x2, x2, #1\n\tb.ne .Lb\n\tcbnz x0, .La\n\tret\n"
    assert inner_loops(text) == [["\tfmla v0.4s, v1.4s, v2.4s", "\tsubs x2, x2, #1"]]


def blocked_conv(width: int) -> Workload:
    b = WorkloadBuilder(arm_target())
    x, w = b.tensor(1, 32, 14, 14, blocked=True), b.parameter(width, 32, 3, 3)
    b.call("aten.conv2d.default", x, w, None, (1, 1), (1, 1), (1, 1), 1)
    return b.finish(1, width, 14, 14, blocked=True)


@needs_mca
def test_estimates_order_processors_widths_and_tiles() -> None:
    target = arm_target("cortex-a76")
    plain = [c for c in lower.candidates(blocked_conv(32), target) if c.template == "conv"]
    cycles = {width: estimate(blocked_conv(width), plain[0], target).cycles for width in (16, 32)}
    assert 1.8 < cycles[32] / cycles[16] < 2.2
    assert estimate(blocked_conv(32), plain[0], arm_target("cortex-a55")).cycles > 1.2 * cycles[32], "the small core is slower"
    multiply_adds = 32 * 32 * 9 * 14 * 14 / 4
    assert multiply_adds / 2 / 1.2 < cycles[32] < 4 * multiply_adds, "at most two vector multiply-adds in a cycle"
    chosen = StaticTimer(target).measure_candidates(blocked_conv(32), tuple(plain))
    assert chosen.latency.provenance == "static"
    assert chosen.latency.seconds == min(estimate(blocked_conv(32), c, target).cycles for c in plain) * 1e-9
    assert "static estimate" in str(estimate(linear(8), lower.candidates(linear(8), target)[0], target))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, runtime: tuple[Path, ...]) -> Path:
    return build_server(tmp_path_factory.mktemp("server"), runtime=runtime)


def joined(running: Processes, server: Path) -> "subprocess.Popen[bytes]":
    """The server under qemu, registered with the tracker as 'board'."""
    return running.serve_program(
        [toolchain.emulator(), "-L", str(toolchain.SYSROOT), str(server), "--tracker", str(running.tracker), "--key", "board",
         "--processor", "cortex-a76", "--port", str(free_port())], "board",
    )  # fmt: skip


@needs_cross
@needs_qemu
def test_a_board_joins_the_tracker_and_times_kernels(server: Path) -> None:
    target = arm_target("cortex-a76")
    with processes() as running:
        joined(running, server)
        with DevicePool(Device("board", running.tracker, "board", "arm64", 120.0), budget=0.01) as pool:
            facts = pool.facts()
            assert (facts.mcpu, facts.architecture) == ("cortex-a76", "aarch64")
            workload = linear(8)
            found = pool.measure_candidates(workload, lower.candidates(workload, target)[:1], target)
            assert found.latency.provenance == "simulated", "times under emulation are no times of a device"


@needs_cross
@needs_qemu
def test_the_server_says_what_is_wrong(server: Path) -> None:
    done = emulated(server, ["--key", "board"], server.parent)
    assert done.returncode == 2
    assert "usage: rpc_server --tracker" in done.stderr


def test_cuda_workloads_have_no_arm64_surprise() -> None:
    assert lower.candidates(conv(), arm_target())[0].template == "generic", (
        "row-major convolutions are generated, blocked ones have templates"
    )


def test_an_android_project_is_emitted_with_arm64_objects(tmp_path: Path) -> None:
    from billhook.codegen.arm.android_project import write_android_project

    target = arm_target("generic")
    given = case(Cnn, target, pruned=True)
    objects = write_android_project(given.network, first(given.network, target), tmp_path / "app")
    assert objects
    assert "not linked" in (tmp_path / "app" / "README.md").read_text()
    for name in ("CMakeLists.txt", "billhook_jni.cc", "Network.java", "model.h"):
        assert (tmp_path / "app" / name).is_file()
