"""Kernels over pairs of widths (in, out): a convolution that has templates, and one that MetaSchedule has to tune."""

from collections.abc import Callable
from dataclasses import dataclass

from billhook.costmodel.family import Coordinate, Widths, width
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, TensorType, Workload

INPUTS = tuple(range(16, 161, 16))
OUTPUTS = tuple(range(8, 161, 8))
PAIRS: tuple[Widths, ...] = tuple((i, o) for i in INPUTS for o in OUTPUTS)
_SIDE, _LENGTH = 28, 256


@dataclass(frozen=True, slots=True)
class PairFamily:
    """A kernel family over two axes; see `costmodel.family.Family`."""

    make: Callable[[int, int], Workload]
    step: int

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        return width("in"), width("out")

    @property
    def steps(self) -> Widths:
        return (self.step, self.step)

    def workload(self, widths: Widths, /) -> Workload | None:
        """The kernel for (in, out)."""
        inputs, outputs = widths
        return self.make(inputs, outputs)


def templated(target: Target) -> PairFamily:
    """A 3x3 convolution with a ReLU on channel-blocked maps of 28x28."""

    def make(inputs: int, outputs: int) -> Workload:
        image = TensorType((1, inputs, _SIDE, _SIDE), block=target.channel_block(inputs))
        result = TensorType((1, outputs, _SIDE, _SIDE), block=target.channel_block(outputs))
        call = Call("aten.conv2d.default", (Ref(0), Ref(1), Ref(2), (1, 1), (1, 1), (1, 1), 1))
        return _with_relu(image, TensorType((outputs, inputs, 3, 3)), result, call)

    return PairFamily(make, target.width_step)


def generic(target: Target) -> PairFamily:
    """A convolution of width 3 along 256 places with a ReLU: no template covers it."""

    def make(inputs: int, outputs: int) -> Workload:
        call = Call("aten.conv1d.default", (Ref(0), Ref(1), Ref(2), (1,), (1,), (1,), 1))
        places = TensorType((1, inputs, _LENGTH)), TensorType((1, outputs, _LENGTH))
        return _with_relu(places[0], TensorType((outputs, inputs, 3)), places[1], call)

    return PairFamily(make, target.width_step)


def _with_relu(given: TensorType, weight: TensorType, result: TensorType, call: Call) -> Workload:
    bias = TensorType(weight.shape[:1])
    return Workload((given, weight, bias), ("activation", "parameter", "parameter"), (call, Call("aten.relu.default", (Ref(3),))), result)
