"""Geometry of two-dimensional window operators (convolutions and pools) read from a workload."""

from dataclasses import dataclass
from typing import Any

from billhook.codegen.tvm_any import T
from billhook.ir.workload import Arg, Ref, TensorType, Workload

from .reduced import is_float
from .segments import Axis


def pair(arg: Arg) -> tuple[int, int]:
    """ATen's int[2] argument: one number stands for both."""
    values = arg if isinstance(arg, tuple) else (arg,)
    numbers = [v for v in values if isinstance(v, int)]
    return numbers[0], numbers[-1]


@dataclass(frozen=True, slots=True)
class Feature:
    """A 4-D feature map in flat memory: batch, channels, height, width and layout block (1: plain NCHW)."""

    batch: int
    channels: int
    height: int
    width: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.channels // self.block)

    @property
    def elements(self) -> int:
        return self.batch * self.blocks * self.height * self.width * self.block


def feature(given: TensorType) -> Feature | None:
    """The feature map of a floating-point 4-D tensor type, or None."""
    if len(given.shape) != 4 or not is_float(given) or 0 in given.shape:
        return None
    return Feature(*given.shape, given.block or 1)


@dataclass(frozen=True, slots=True)
class Conv:
    """A 2-D convolution: maps, axes, groups, and the input numbers of data, weight and bias."""

    source: Feature
    target: Feature
    rows: Axis
    columns: Axis
    groups: int
    data: int
    weight: int
    bias: int | None

    @property
    def taps(self) -> int:
        return self.rows.window * self.columns.window


def conv_of(workload: Workload) -> Conv | None:
    """The anchor as a convolution whose data is an activation and whose weight and bias are parameters; None otherwise."""
    call = workload.anchor
    if call.op != "aten.conv2d.default":
        return None
    data, weight, bias, stride, padding, dilation, groups = call.args
    source, target = feature(workload.inputs[0]), feature(workload.output)
    if not isinstance(data, Ref) or not isinstance(weight, Ref) or not isinstance(groups, int) or source is None or target is None:
        return None
    bias_index = bias.index if isinstance(bias, Ref) else None
    parameters = [i for i in (weight.index, bias_index) if i is not None]
    if data.index != 0 or any(i >= len(workload.inputs) or workload.roles[i] != "parameter" for i in parameters):
        return None
    window = workload.inputs[weight.index].shape[2:]
    (sy, sx), (py, px), (dy, dx) = pair(stride), pair(padding), pair(dilation)
    rows = Axis(source.height, target.height, window[0], sy, py, dy)
    columns = Axis(source.width, target.width, window[1], sx, px, dx)
    return Conv(source, target, rows, columns, groups, data.index, weight.index, bias_index)


def taps_inside(axis: Axis, position: Any) -> tuple[Any, Any]:
    """The taps [start, stop) through which an output position, known at run time, reads inside the input."""
    first, last = axis.offset(0, 0), axis.offset(axis.out - 1, axis.window - 1)
    start = T.max(0, T.ceildiv(axis.padding - position * axis.stride, axis.dilation)) if first < 0 else 0
    if last < axis.size:
        return start, axis.window
    return start, T.min(axis.window, T.floordiv(axis.size - 1 + axis.padding - position * axis.stride, axis.dilation) + 1)
