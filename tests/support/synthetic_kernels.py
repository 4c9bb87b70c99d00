"""Kernel families with a known latency, and a measuring function that counts its calls: a hardware to test the cost model on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from billhook.costmodel.family import Coordinate, width
from billhook.ir.errors import MeasureError
from billhook.ir.latency import Latency
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, TensorType, Workload

TARGET = Target()


@dataclass(frozen=True, slots=True)
class ConvFamily:
    """A same-padded convolution; each coordinate is the axes whose sizes add up to that width."""

    inputs: tuple[str, ...] = ("ci",)
    outputs: tuple[str, ...] = ("co",)
    pixels: int = 28
    taps: int = 3
    steps: tuple[int, ...] = (8, 8)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return width(*self.inputs), width(*self.outputs)

    def workload(self, widths: tuple[int, ...], /) -> Workload | None:
        ci, co = widths
        return conv(ci, co, self.pixels, self.taps) if ci and co else None


@dataclass(frozen=True, slots=True)
class SquareFamily:
    """A convolution whose input and output are one axis."""

    axis: str = "c"
    pixels: int = 28
    steps: tuple[int, ...] = (8,)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return (width(self.axis),)

    def workload(self, widths: tuple[int, ...], /) -> Workload | None:
        return conv(widths[0], widths[0], self.pixels, 3) if widths[0] else None


@dataclass(frozen=True, slots=True)
class FixedFamily:
    """A kernel that depends on no axis."""

    channels: int = 16
    coordinates: tuple[Coordinate, ...] = ()
    steps: tuple[int, ...] = ()

    def workload(self, widths: tuple[int, ...], /) -> Workload | None:
        assert widths == ()
        return conv(self.channels, self.channels, 7, 1)


def conv(ci: int, co: int, pixels: int = 28, taps: int = 3) -> Workload:
    """A convolution with channel-blocked input and output."""
    x = TensorType((1, ci, pixels, pixels), block=TARGET.channel_block(ci))
    y = TensorType((1, co, pixels, pixels), block=TARGET.channel_block(co))
    call = Call("aten.conv2d.default", (Ref(0), Ref(1), None, (1, 1), (taps // 2, taps // 2), (1, 1), 1))
    return Workload((x, TensorType((co, ci, taps, taps))), ("activation", "parameter"), (call,), y)


def conv_flops(workload: Workload) -> float:
    """Operations of a convolution, without padding lanes."""
    co, ci, height, width = workload.inputs[1].shape
    return 2.0 * co * ci * height * width * math.prod(workload.output.shape[2:])


def true_seconds(workload: Workload, narrow: float = 0.92, overhead: float = 1e-6) -> float:
    """A machine with a staircase of 8 channels, slower on 8-wide blocks, with a rate that grows with the widths."""
    co, ci, taps, _ = workload.inputs[1].shape
    pixels = math.prod(workload.output.shape[2:])
    ci, co = -(-ci // 8) * 8, -(-co // 8) * 8
    rate = 116e9 * (1 - 0.12 * math.exp(-ci / 24)) * (1 - 0.1 * math.exp(-co / 24))
    rate *= (narrow if co % 16 else 1.0) * (0.97 if ci % 16 else 1.0)
    weights = 4.0 * ci * co * taps * taps
    memory = weights / 60e9 * (1 + weights / (weights + 1e6)) + 4.0 * (ci + co) * pixels / 60e9
    return overhead + 2.0 * ci * co * taps * taps * pixels / rate + memory


@dataclass(slots=True)
class CountingMeasure:
    """A Measure with noise of one sign (interference only slows), which remembers what it was asked."""

    truth: Callable[[Workload], float] = true_seconds
    noise: float = 0.0
    refuse: Callable[[Workload], bool] = lambda _: False
    asked: list[Workload] = field(default_factory=list[Workload])
    random: Random = field(default_factory=lambda: Random(0))

    def __call__(self, workload: Workload, /) -> tuple[Latency, str]:
        self.asked.append(workload)
        if self.refuse(workload):
            raise MeasureError("no template covers it")
        seconds = self.truth(workload) * (1 + self.noise * abs(self.random.gauss()))
        return Latency(seconds, seconds * (1 - self.noise), seconds * (1 + self.noise)), f'["conv",{len(self.asked)}]'
