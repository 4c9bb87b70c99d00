"""What a kernel's calls become on the accelerator: layers with what can be requantised along, and what the host does between them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias

import torch

from billhook.ir.errors import CaptureError
from billhook.ir.reference import run_calls
from billhook.ir.workload import Arg, Call, Ref, Workload

from .shape import LayerShape, MapShape

Kind: TypeAlias = Literal["layer", "move", "unary", "norm", "attention"]

LAYERS = frozenset(
    f"aten.{name}"
    for name in ("conv2d.default", "linear.default", "max_pool2d.default", "avg_pool2d.default", "adaptive_avg_pool2d.default", "mean.dim")
)
ADD = "aten.add.Tensor"
MOVES = frozenset(
    f"aten.{name}"
    for name in (
        "reshape.default", "permute.default", "slice.Tensor", "select.int", "expand.default", "flip.default", "roll.default", "cat.default",
    )
)  # fmt: skip
UNARY = frozenset(
    f"aten.{name}.default"
    for name in (
        "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "elu", "leaky_relu",
        "relu", "relu6", "hardtanh", "clamp", "clamp_min",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fused:
    """Calls `first` to `last` of a workload as one operation. residual: what is added; low, high: bounds of the result (real)."""

    kind: Kind
    first: int
    last: int
    residual: Ref | None = None
    low: float = -inf
    high: float = inf


def fused(workload: Workload) -> tuple[Fused, ...]:
    """The operations of a kernel in order. Raises CaptureError for a call that neither accelerator nor host can do."""
    found: list[Fused] = []
    place = 0
    shapes = [tuple(v.shape) for v in meta_values(workload)]
    while place < len(workload.calls):
        found.append(_operation(workload, place, shapes))
        place = found[-1].last + 1
    return tuple(found)


def meta_values(workload: Workload) -> tuple[torch.Tensor, ...]:
    """Inputs and call results without data: their shapes."""
    given = [torch.empty(t.shape, dtype=getattr(torch, t.dtype), device="meta") for t in workload.inputs]
    return run_calls(workload.calls, given)


def _operation(workload: Workload, place: int, shapes: Sequence[tuple[int, ...]]) -> Fused:
    op = workload.calls[place].op
    if op in LAYERS or (op == ADD and (_is_sum(workload, place, shapes) or is_bias(workload, place, shapes))):
        return _with_epilogue(workload, place, shapes)
    for kind, known in _HOST:
        if op in known:
            return Fused(kind, place, place)
    raise CaptureError(f"{op} has no place on the FPGA accelerator, nor among what its host computes; express the network without it")


_HOST: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("move", MOVES),
    ("unary", UNARY),
    ("norm", frozenset({"aten.layer_norm.default"})),
    ("attention", frozenset({"aten.scaled_dot_product_attention.default"})),
)


def _is_sum(workload: Workload, place: int, shapes: Sequence[tuple[int, ...]]) -> bool:
    call = workload.calls[place]
    refs = references(call)
    return len(refs) == 2 and shapes[refs[0].index] == shapes[refs[1].index] and dict(call.kwargs).get("alpha", 1) == 1


def is_bias(workload: Workload, place: int, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether a call adds a constant per channel to a map."""
    call = workload.calls[place]
    refs = references(call)
    if len(refs) != 2 or call.op != ADD or dict(call.kwargs).get("alpha", 1) != 1:
        return False
    source = source_of(workload, call)
    (other,) = [r for r in refs if r != source] or [source]
    if other.index >= len(workload.roles) or workload.roles[other.index] != "parameter" or source == other:
        return False
    result = shapes[len(workload.inputs) + place]
    given = (1,) * (len(result) - len(shapes[other.index])) + shapes[other.index]
    channel = 1 if len(result) == 4 else len(result) - 1
    wanted = tuple(n if d == channel else 1 for d, n in enumerate(result))
    return given == wanted and shapes[source.index] == result and given != result


def source_of(workload: Workload, call: Call) -> Ref:
    """The value that a layer streams through the array: the first that is no parameter."""
    refs = references(call)
    return next((r for r in refs if r.index >= len(workload.roles) or workload.roles[r.index] == "activation"), refs[0])


def _with_epilogue(workload: Workload, place: int, shapes: Sequence[tuple[int, ...]]) -> Fused:
    """A layer takes a sum and a clamp behind it along, where nothing else reads what is between."""
    inputs, last, residual = len(workload.inputs), place, None
    result = Ref(inputs + place)
    call = workload.calls[place]
    if call.op == ADD and not is_bias(workload, place, shapes):
        first, second = references(call)
        residual = second if source_of(workload, call) == first else first
    following = _only_reader(workload, result)
    if residual is None and following == last + 1 and workload.calls[following].op == ADD and _is_sum(workload, following, shapes):
        others = [r for r in references(workload.calls[following]) if r != result]
        if len(others) == 1:
            residual, last = others[0], following
            following = _only_reader(workload, Ref(inputs + last))
    low, high = -inf, inf
    if following == last + 1 and (bounds := _bounds(workload.calls[following])) is not None:
        (low, high), last = bounds, following
    return Fused("layer", place, last, residual, low, high)


def _only_reader(workload: Workload, value: Ref) -> int:
    """The call that reads a value, if it is the only one and reads it once; else -1."""
    readers = [i for i, call in enumerate(workload.calls) if value in references(call)]
    return readers[0] if len(readers) == 1 and references(workload.calls[readers[0]]).count(value) == 1 else -1


def _bounds(call: Call) -> tuple[float, float] | None:
    """What a clamp keeps its argument within; None for other calls."""

    def number(value: Arg, default: float) -> float:
        return float(value) if isinstance(value, (int, float)) else default

    name = call.op.removeprefix("aten.").removesuffix(".default")
    limits = {"relu": (0.0, inf), "relu6": (0.0, 6.0)}
    if name in limits:
        return limits[name]
    if name in {"hardtanh", "clamp", "clamp_min"}:
        arguments = (*call.args[1:], None, None)
        return number(arguments[0], -inf), number(arguments[1], inf)
    return None


def references(call: Call) -> list[Ref]:
    """The values that a call reads, in order, with repeats."""

    def walk(arg: Arg) -> Iterator[Ref]:
        if isinstance(arg, Ref):
            yield arg
        elif isinstance(arg, tuple):
            for item in arg:
                yield from walk(item)

    return [r for arg in (*call.args, *(v for _, v in call.kwargs)) for r in walk(arg)]


def map_shape(shape: Sequence[int]) -> MapShape:
    """A tensor as a map: [1, C, H, W] as it is, of others the last dimension is the channels. Raises CaptureError for batches."""
    if len(shape) < 2 or shape[0] != 1:
        raise CaptureError(f"a tensor of shape {list(shape)} does not fit the FPGA accelerator, which takes one sample; give a batch of 1")
    if len(shape) == 4:
        return MapShape(shape[1], shape[2], shape[3])
    tokens = 1
    for size in shape[1:-1]:
        tokens *= size
    return MapShape(shape[-1], 1, tokens)


def layer_shape(workload: Workload, operation: Fused, shapes: Sequence[tuple[int, ...]]) -> LayerShape:
    """The layer of an operation, without borders. Raises CaptureError for forms that the accelerator does not have."""
    call = workload.calls[operation.first]
    source = map_shape(shapes[source_of(workload, call).index])
    output = map_shape(shapes[len(workload.inputs) + operation.last])
    kernel, stride, padding, groups, maximum = (1, 1), (1, 1), (0, 0), source.channels, False
    if call.op == "aten.conv2d.default":
        kernel = tuple(shapes[references(call)[1].index][2:])
        stride, padding, groups = _two(call.args[3]), _two(call.args[4]), _two(call.args[6])[0]
        _need(_two(call.args[5]) == (1, 1), call, "a dilation")
    elif call.op == "aten.linear.default":
        _need(len(shapes[references(call)[0].index]) != 4, call, "a linear map of a tensor with four dimensions")
        groups = 1
    elif call.op == "aten.max_pool2d.default":
        kernel, maximum = _two(call.args[1]), True
        stride, padding = _two(call.args[2]) if call.args[2] else kernel, _two(call.args[3])
        _need(_two(call.args[4]) == (1, 1), call, "a dilation")
    elif call.op == "aten.avg_pool2d.default":
        kernel = _two(call.args[1])
        stride, padding = _two(call.args[2]) if call.args[2] else kernel, _two(call.args[3])
        _need(padding == (0, 0) or call.args[5] is True, call, "an average without its padding")
    elif call.op in {"aten.adaptive_avg_pool2d.default", "aten.mean.dim"}:
        kernel = stride = _global(call, source, shapes[len(workload.inputs) + operation.first])
    fits = (source.height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    _need(fits == output.height, call, "a result rounded up in size")
    residual = 0 if operation.residual is not None else None
    return LayerShape(source, output, (kernel[0], kernel[1]), stride, padding, groups, residual, maximum)


def _global(call: Call, source: MapShape, result: tuple[int, ...]) -> tuple[int, int]:
    """Kernel, and stride, of an average over equal parts of a map."""
    if call.op == "aten.mean.dim":
        dims = call.args[1] if isinstance(call.args[1], tuple) else ()
        _need(
            {d % 4 for d in dims if isinstance(d, int)} == {2, 3} and source.channels == result[1],
            call,
            "a mean over other dimensions than a map's pixels",
        )
        return source.height, source.width
    height, width = result[2], result[3]
    _need(source.height % height == 0 and source.width % width == 0, call, "an average over unequal parts")
    return source.height // height, source.width // width


def _two(value: Arg) -> tuple[int, int]:
    numbers = [v for v in value if isinstance(v, int)] if isinstance(value, tuple) else [value] if isinstance(value, int) else []
    return numbers[0], numbers[-1]


def _need(holds: bool, call: Call, what: str) -> None:
    if not holds:
        raise CaptureError(f"{call.op} with {what} is not supported on the FPGA target; express the network without it")
