"""A network built from kernels equals torch, survives export and load, and reports a time for every kernel."""

from pathlib import Path

import pytest
import torch
from kernel_workloads import WorkloadBuilder, conv

from billhook.codegen import lower
from billhook.codegen.artifact import load_artifact
from billhook.codegen.build import build
from billhook.codegen.host import host_target
from billhook.codegen.profile import profile
from billhook.ir.errors import BundleError, MeasureError
from billhook.ir.network import Kernel, Network
from billhook.ir.reference import run_network
from billhook.ir.workload import TensorType

HOST = host_target()


def residual_network() -> Network:
    """A stem, two residual convolutions that share one kernel, a mean and a classifier."""
    random = torch.Generator().manual_seed(0)
    stem = conv((1, 3, 8, 16), 24, 3, epilogue=("relu",), plain=True, target=HOST)
    block = conv((1, 24, 8, 16), 24, 3, epilogue=("residual", "relu"), target=HOST)
    b = WorkloadBuilder(HOST)
    b.call("aten.mean.dim", b.tensor(1, 24, 8, 16, blocked=True), (2, 3), False, dtype=None)
    mean = b.finish(1, 24)
    b = WorkloadBuilder(HOST)
    b.call("aten.linear.default", b.tensor(1, 24), b.parameter(10, 24), b.parameter(10))
    head = b.finish(1, 10)
    kernels = [Kernel("stem", stem, ("x", "stem.w", "stem.b"), "a")]
    kernels += [Kernel(f"conv{i}", block, (source, f"{i}.w", f"{i}.b", source), out) for i, source, out in ((0, "a", "b"), (1, "b", "c"))]
    kernels += [Kernel("mean", mean, ("c",), "d"), Kernel("head", head, ("d", "head.w", "head.b"), "y")]
    shapes = {"stem.w": (24, 3, 3, 3), "0.w": (24, 24, 3, 3), "1.w": (24, 24, 3, 3), "head.w": (10, 24)}
    constants = {n: torch.randn(s, generator=random) / torch.tensor(s[1:]).prod() ** 0.5 for n, s in shapes.items()}
    constants |= {n: torch.randn(c, generator=random) for n, c in {"stem.b": 24, "0.b": 24, "1.b": 24, "head.b": 10}.items()}
    return Network((("x", TensorType((1, 3, 8, 16))),), ("y", "d"), tuple(kernels), constants)


def test_built_exported_and_loaded_networks_equal_torch(tmp_path: Path) -> None:
    network = residual_network()
    artifact = build(network, {k.workload: lower.candidates(k.workload, HOST)[0] for k in network.kernels}, HOST)
    x = torch.randn(1, 3, 8, 16)
    outputs = artifact.run(x)
    for found, expected in zip(outputs, run_network(network, (x,)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    artifact.export(tmp_path / "net.so")
    assert [p.name for p in tmp_path.iterdir()] == ["net.so"]
    loaded = load_artifact(tmp_path / "net.so").run(x)
    assert all(torch.equal(a, b) for a, b in zip(loaded, outputs, strict=True))
    times = profile(artifact, x, repeats=3)
    assert [name for name, _ in times] == ["stem", "conv0", "conv1", "mean", "head"]
    assert all(latency.seconds > 0 for _, latency in times)


def test_unwritable_folder_and_missing_library_are_one_line(tmp_path: Path) -> None:
    network = residual_network()
    artifact = build(network, {k.workload: lower.candidates(k.workload, HOST)[0] for k in network.kernels}, HOST)
    with pytest.raises(BundleError, match="cannot write"):
        artifact.export(tmp_path / "missing" / "net.so")
    with pytest.raises(BundleError, match="there is no library"):
        load_artifact(tmp_path / "net.so")


def test_kernel_without_a_choice_is_named() -> None:
    with pytest.raises(MeasureError, match="kernel 'stem' has no chosen candidate"):
        build(residual_network(), {}, HOST)
