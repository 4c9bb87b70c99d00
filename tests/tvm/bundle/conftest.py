"""One small network, pruned and compiled, as a bundle."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from billhook.codegen.artifact import Artifact
from billhook.codegen.bundle import BundleContent, write_bundle
from billhook.codegen.bundle_vector import TestVector
from billhook.codegen.host import host_target
from billhook.codegen.lower import tvm_target
from billhook.ir.capture import capture
from billhook.ir.latency import Latency
from billhook.ir.plan import make_plan
from billhook.passes.cut import cut_graph
from billhook.passes.infer import infer_axes


def compiled_by_hand(state: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> Any:
    """The network below with its weights as constants; the entry returns a tuple, as the entry of a built network does."""
    builder: Any = relax.BlockBuilder()
    typed: Any = relax.TensorType
    constant = {
        name: relax.const(tensor.reshape((1, -1, 1, 1) if name.endswith("bias") else tensor.shape).numpy())
        for name, tensor in state.items()
    }
    x: Any = relax.Var("x", typed(shape, "float32"))
    with builder.function("main", [x]):
        hidden = relax.op.nn.relu(relax.op.add(relax.op.nn.conv2d(x, constant["0.weight"]), constant["0.bias"]))
        out = relax.op.add(relax.op.nn.conv2d(hidden, constant["2.weight"]), constant["2.bias"])
        builder.emit_func_output(relax.Tuple([builder.normalize(out)]))
    return builder.get()


@pytest.fixture(scope="package")
def content() -> BundleContent:
    torch.default_generator.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    x = torch.randn(1, 3, 8, 8)
    program = infer_axes(capture(model, (x,)))
    axis = next(axis.name for axis in program.axes if axis.prunable and axis.size == 6)
    plan = make_plan(program, {axis: (0, 1, 2, 4, 5)})
    network = cut_graph(program, plan)
    target = host_target()
    library: Any = tvm
    executable = library.compile(compiled_by_hand(network.state_dict(), tuple(x.shape)), tvm_target(target))
    latency = Latency(2e-3, 1e-3, 3e-3)
    vector = TestVector((x.numpy(),), (network(x).detach().numpy(),))
    return BundleContent(Artifact(executable), target, program, plan, network, vector, 3e-3, latency, latency)


@pytest.fixture(scope="package")
def original(content: BundleContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundle") / "out"
    write_bundle(bundle, content)
    return bundle


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "out"))
