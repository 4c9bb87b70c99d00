"""Networks for tests of targets: a CNN and a ViT, dense and pruned, and what a target's tests need installed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import billhook.api as bh
from billhook.costmodel.partition import partition
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference


class Cnn(nn.Module):
    """Stem, a residual block, a depthwise-separable step, pooling and a classifier, at CIFAR size."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.inner = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.outer = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.point = nn.Conv2d(2 * width, width, 1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(self.stem(x), 2)
        x = torch.relu(self.inner(x))
        x = torch.relu(self.outer(x) + x)
        x = torch.nn.functional.hardswish(self.point(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


class Vit(nn.Module):
    """One pre-norm transformer block over patches, with a class token."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.first, self.second, self.last = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        b, n, _ = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.mix(mixed.transpose(1, 2).reshape(b, n, -1))
        x = x + self.down(nn.functional.gelu(self.up(self.second(x))))
        return self.head(self.last(x)[:, 0])


@dataclass(frozen=True)
class Case:
    """A network for a target, its program, one input, and what torch computes from it."""

    network: Network
    program: Program
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    expected: torch.Tensor


def case(make: Callable[[], nn.Module], target: Target, *, pruned: bool) -> Case:
    """The network, dense or with every prunable axis cut to about five eighths (an odd share, so that widths are no powers of two)."""
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(1, 3, 32, 32)
    program = bh.trace(model, x)
    if pruned:
        kept = {axis.name: range(max(1, 5 * axis.size // 8)) for axis in program.axes if axis.prunable}
        cut = bh.prune(program, kept)
        model, program = cut.model.eval(), cut.program
    graph = cut_graph(program, Plan({}))
    network = partition(normalise_for_inference(graph, program.example), target).network
    with torch.no_grad():
        return Case(network, program, model, (x,), model(x))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value, which must not be nothing."""
    scale = float(expected.abs().max())
    assert scale > 1e-3, "the network's output says nothing"
    return float((found - expected).abs().max()) / scale


def need(tool: str, package: str) -> pytest.MarkDecorator:
    """Skip with the reason where a program is missing."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed (Debian: apt-get install {package})")


def _opencl_missing() -> str:
    if find_spec("pyopencl") is None:
        return "pyopencl is not installed (pip install 'billhook[opencl]')"
    from billhook.codegen.opencl.devices import local_device
    from billhook.ir.errors import ToolchainError

    try:
        local_device()
    except ToolchainError as error:
        return str(error)
    return ""


OPENCL_MISSING = _opencl_missing()
needs_opencl = pytest.mark.skipif(bool(OPENCL_MISSING), reason=OPENCL_MISSING or "-")
