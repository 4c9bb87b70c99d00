"""Layers and networks for the tests of the FPGA target."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.assemble import assemble
from billhook.codegen.fpga.layer import Int8, Layer, run_layer
from billhook.codegen.fpga.layout import pack_map, pack_parameters, pack_weights
from billhook.codegen.fpga.lowering import QuantisedNetwork, quantise_network
from billhook.codegen.fpga.memory import Memory
from billhook.codegen.fpga.pricing import Pricer
from billhook.codegen.fpga.program import Image, PlacedMap, Program
from billhook.codegen.fpga.schedule import Places, Requantisation, schedule
from billhook.codegen.fpga.shape import LayerShape, MapShape
from billhook.codegen.fpga.simulator import Simulator, simulator
from billhook.codegen.fpga.tiling import Tiling
from billhook.compiler.fpga_cost import dense_partition, fpga_target
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.program import Program as Network
from billhook.passes.analyse import ANALYSIS

SMALL = Accelerator(8, 4, 4, 256, 256, 64, 128)
SINGLE = Accelerator(4, 4, 4, 256, 256, 64, 128, buffers=1)


def built(accelerator: Accelerator, cache: Path) -> Simulator:
    """The simulator, or a skip where Verilator is missing."""
    if shutil.which("verilator") is None:
        pytest.skip("verilator is not installed (tools/install-debian.sh)")
    return simulator(accelerator, cache)


def layer_case(shape: LayerShape, seed: int = 0) -> tuple[Layer, Int8, Int8 | None]:
    """A layer with random numbers, a source and a residual."""
    rng = np.random.default_rng(seed)
    s, o = shape.source, shape.output

    def integers(*dims: int) -> Int8:
        return rng.integers(-128, 128, dims).astype(np.int8)

    weight = integers(o.channels, s.channels // shape.groups, *shape.kernel)
    source = integers(s.channels, s.height, s.width)
    if shape.maximum:
        weight, source = np.ones_like(weight), np.abs(source.clip(-127, 127))
    added = shape.residual is not None
    numbers = Requantisation(19, -128, 100, 50000 if added else 0, 4 if added else 0)
    bias = rng.integers(-3000, 3000, o.channels).astype(np.int32)
    multiplier = rng.integers(500, 1500, o.channels).astype(np.uint16)
    layer = Layer("layer", shape, "x", "y", "r" if added else None, weight, bias, multiplier, numbers)
    return layer, source, integers(o.channels, o.height, o.width) if added else None


def layer_program(layer: Layer, residual: Int8 | None, tiling: Tiling, accelerator: Accelerator) -> Program:
    """A program of one layer."""
    image, columns, shape = Image(), accelerator.columns, layer.shape
    x = PlacedMap(shape.source, image.reserve(shape.source.bytes(columns)), 1.0)
    y = PlacedMap(shape.output, image.reserve(shape.output.bytes(columns)), 1.0)
    added = 0
    if residual is not None:
        o = shape.output
        added = image.add(pack_map(residual, MapShape(o.channels, o.height, o.width, shape.residual or 0), columns))
    weights, parameters = image.add(pack_weights(layer, accelerator)), image.add(pack_parameters(layer, accelerator))
    steps = schedule(shape, tiling, accelerator, Places(x.address, weights, parameters, added, y.address), layer.numbers)
    return Program(accelerator, tuple(("layer", s) for s in steps), {"x": x, "y": y}, "x", "y", image.bytes())


def expected(layer: Layer, source: Int8, residual: Int8 | None) -> NDArray[np.float32]:
    return run_layer(layer, source, residual).astype(np.float32).reshape(-1)


class Block(nn.Module):
    """A residual block with a projection, a depthwise filter, and poolings around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.short = nn.Conv2d(8, 16, 1, stride=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.stem(x))), 3, 2, 1)
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + self.short(x))
        x = F.hardswish(self.depthwise(x))
        return self.head(F.adaptive_avg_pool2d(F.avg_pool2d(x, 2), 1).flatten(1))


class Encoder(nn.Module):
    """A vision transformer of one block with a class token."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 10, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.head = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


def traced(model: nn.Module, size: int = 12) -> Network:
    network, _ = run_passes(capture(model.eval(), (torch.zeros(1, 3, size, size),), {}), ANALYSIS)
    return network


def samples(count: int = 4, size: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, size, size, generator=generator) for _ in range(count)]


def quantised(program: Network) -> QuantisedNetwork:
    return quantise_network(dense_partition(program, fpga_target("pynq-z2", SMALL)).network, samples())


def assembled(network: QuantisedNetwork, memory: Memory, accelerator: Accelerator = SMALL) -> Program:
    return assemble(network, Pricer(accelerator, memory))
