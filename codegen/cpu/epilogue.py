"""Epilogues: the elementwise calls after a kernel's anchor, translated one by one on each vector of the output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from billhook.ir.workload import Arg, Call, Ref, Workload

from .pointwise import OPERATORS
from .reduced import is_float
from .vector import bind, load, load_partial, splat

Access = Literal["element", "channel", "sample_channel", "scalar"]
_CHANNEL_PARAMETERS = {"aten.batch_norm.default": (1, 2, 3, 4)}  # arguments that are [C] vectors by definition


@dataclass(frozen=True, slots=True)
class Place:
    """Where a vector of the output lies.

    element: its flat index in the output; channel: its first channel (last dimension, if row-major) in a per-channel vector;
    sample_channel: its flat index in a [N, C, 1, 1] tensor of the output's block; count: lanes that are inside the tensor.
    """

    lanes: int
    element: Any
    channel: Any
    sample_channel: Any = None
    count: int = 0

    @property
    def whole(self) -> int:
        return self.count or self.lanes


def channel_vectors(workload: Workload) -> frozenset[int]:
    """Inputs that an operator takes as [C] vectors (the batch norm's four)."""
    named = [call.args[i] for call in workload.calls for i in _CHANNEL_PARAMETERS.get(call.op, ())]
    return frozenset(arg.index for arg in named if isinstance(arg, Ref))


def access(workload: Workload, index: int) -> Access | None:
    """How the epilogue reads input `index` of a workload; None if no vector of the output corresponds to a vector of it."""
    given, out = workload.inputs[index], workload.output
    if not is_float(given):
        return None
    if index in channel_vectors(workload):
        return "channel"
    if given.shape == out.shape and given.block == out.block:
        return "element"
    if all(size == 1 for size in given.shape):
        return "scalar"
    axis = 1 if out.block else len(out.shape) - 1
    aligned = (1,) * (len(out.shape) - len(given.shape)) + given.shape
    others = [size for d, size in enumerate(aligned) if d != axis]
    if len(aligned) != len(out.shape) or aligned[axis] != out.shape[axis]:
        return None
    padded = workload.roles[index] == "parameter" or (out.block and given.block == out.block)
    if all(size == 1 for size in others):
        return "channel" if padded else None
    if out.block and given.block == out.block and aligned[0] == out.shape[0] and all(size == 1 for size in aligned[2:]):
        return "sample_channel"
    return None


def fusible(workload: Workload, start: int) -> bool:
    """Whether the calls from number `start` on can be translated on vectors of the output."""
    computed = range(len(workload.inputs), len(workload.inputs) + len(workload.calls))
    for call in workload.calls[start:]:
        if call.op not in OPERATORS or _asks_rounding(call) or _is_training(call):
            return False
        for arg in call.args:
            if isinstance(arg, tuple):
                return False
            if isinstance(arg, Ref) and arg.index not in computed and access(workload, arg.index) is None:
                return False
    return True


def _asks_rounding(call: Call) -> bool:
    return any(k == "rounding_mode" and v is not None for k, v in call.kwargs)


def _is_training(call: Call) -> bool:
    return call.op == "aten.batch_norm.default" and bool(call.args[5])


def apply(workload: Workload, start: int, anchors: Mapping[int, Any], buffers: Sequence[Any], place: Place) -> Any:
    """The output vector at `place`, given the vectors of the values computed before call `start` (`anchors`)."""
    values = dict(anchors)

    def operand(arg: Arg) -> Any:
        if not isinstance(arg, Ref):
            return arg
        if arg.index not in values:
            values[arg.index] = bind(_read(workload, arg.index, buffers[arg.index], place))
        return values[arg.index]

    first = len(workload.inputs)
    for number, call in enumerate(workload.calls[start:], start):
        rule = OPERATORS[call.op]
        kwargs = {k: operand(v) for k, v in call.kwargs}
        values[first + number] = bind(rule([operand(a) for a in call.args], kwargs, place.lanes))
    return values[first + len(workload.calls) - 1]


def _read(workload: Workload, index: int, buffer: Any, place: Place) -> Any:
    kind = access(workload, index)
    if kind == "scalar":
        return splat(load(buffer, 0, 1), place.lanes)
    if kind == "channel":
        return load(buffer, place.channel, place.lanes)  # packed with zeros up to whole vectors
    if kind == "sample_channel":
        return load(buffer, place.sample_channel, place.lanes)
    return load_partial(buffer, place.element, place.whole, place.lanes)
