"""Operators that TVM 0.27's importer lacks, or brings into a form that cannot be fused into one function: written as tensor expressions."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import numpy as np
from torch import fx

from . import importer_sample, importer_scatter
from .tvm_any import relax, tvm

Converter: TypeAlias = Callable[[fx.Node, Any], Any]  # a node of an exported program, and the importer with `env` and `block_builder`
Index: TypeAlias = tuple[Any, ...]


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _rank(value: Any) -> int:
    return len(value.shape)


def _extreme(operator: Any) -> Converter:
    """The largest or smallest over some dimensions; none given means all."""

    def convert(node: fx.Node, importer: Any) -> Any:
        dims = _argument(node, 1, "dim", None) or None
        return importer.block_builder.emit(operator(importer.env[node.args[0]], dims, _argument(node, 2, "keepdim", False)))

    return convert


def _quotient(node: fx.Node, importer: Any) -> Any:
    """A quotient, rounded or not; a number becomes a constant of the tensor's type, for which the importer takes 32 bits."""
    dtype = str(node.meta["val"].dtype).removeprefix("torch.")
    mode = node.kwargs.get("rounding_mode", "floor" if "floor" in str(node.target) else None)
    operands = [importer.env[a] if isinstance(a, fx.Node) else relax.const(a, dtype) for a in node.args[:2]]
    divide = relax.op.floor_divide if mode == "floor" else relax.op.divide
    result = divide(*(relax.op.astype(a, dtype) for a in operands))
    return importer.block_builder.emit(relax.op.trunc(result) if mode == "trunc" and dtype.startswith("float") else result)


def _clamp(node: fx.Node, importer: Any) -> Any:
    """Not below one number nor above another; for integers the importer takes an infinity where one is not given."""
    x, dtype = importer.env[node.args[0]], str(node.meta["val"].dtype).removeprefix("torch.")
    for operator, place, name in ((relax.op.maximum, 1, "min"), (relax.op.minimum, 2, "max")):
        bound = _argument(node, place, name, None)
        if bound is not None:
            x = importer.block_builder.emit(operator(x, relax.const(bound, dtype)))
    return x


def _running(start: Any, combine: Any) -> Converter:
    """A sum or product of all elements up to each: of n elements n*n/2 steps, which vectorise."""

    def convert(node: fx.Node, importer: Any) -> Any:
        dtype = str(node.meta["val"].dtype).removeprefix("torch.")

        def compute(x: Any) -> Any:
            dim = int(cast("int", node.args[1])) % max(_rank(x), 1)

            def element(*at: Any) -> Any:
                k = tvm.te.reduce_axis((0, x.shape[dim]), "k")
                value = x(*at[:dim], k, *at[dim + 1 :]).astype(dtype)
                return combine(tvm.tirx.if_then_else(k <= at[dim], value, tvm.tirx.const(start, dtype)), axis=k)

            return tvm.te.compute(x.shape, element, name="running")

        return importer.block_builder.emit_te(compute, importer.env[node.args[0]])

    return convert


def _sort(node: fx.Node, importer: Any) -> Any:
    """Values in ascending or descending order and their places, equal elements in their own order: each element's rank is counted."""
    names = [a.name for a in cast("Any", node.target)._schema.arguments]
    dim, descending = (_argument(node, names.index(n), n, d) for n, d in (("dim", -1), ("descending", False)))
    x = importer.env[node.args[0]]
    places = importer.block_builder.emit_te(lambda value: _places(value, int(dim) % _rank(value), bool(descending)), x)
    if all(user.args[1] == 1 for user in node.users):
        return None, places  # what nothing reads would be computed nevertheless
    return importer.block_builder.emit(relax.op.gather_elements(x, places, axis=dim)), places


def _places(x: Any, dim: int, descending: bool) -> Any:
    def rank(*at: Any) -> Any:
        k = tvm.te.reduce_axis((0, x.shape[dim]), "k")
        here, other = x(*at), x(*at[:dim], k, *at[dim + 1 :])
        before = tvm.tirx.any(other > here if descending else other < here, tvm.tirx.all(other == here, k < at[dim]))
        return tvm.te.sum(before.astype("int64"), axis=k)

    ranks = tvm.te.compute(x.shape, rank, name="rank")

    def place(*at: Any) -> Any:
        k = tvm.te.reduce_axis((0, x.shape[dim]), "k")
        found = ranks(*at[:dim], k, *at[dim + 1 :]) == at[dim].astype("int64")
        return tvm.te.sum(tvm.tirx.if_then_else(found, k.var.astype("int64"), tvm.tirx.const(0, "int64")), axis=k)

    return tvm.te.compute(x.shape, place, name="places")


def _index(node: fx.Node, importer: Any) -> Any:
    """Elements at places given by tensors of integers, which broadcast; dimensions without a tensor stay as they are.

    The result's places come first if the indexed dimensions are apart, as in torch.
    """
    given = cast("list[fx.Node | None]", node.args[1])
    dims = [d for d, index in enumerate(given) if index is not None]
    tensors = [importer.env[index] for index in given if index is not None]
    where = tuple(int(s) for s in _broadcast([cast("fx.Node", given[d]).meta["val"].shape for d in dims]))
    lead = dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0

    def compute(x: Any, *indices: Any) -> Any:
        kept = [s for d, s in enumerate(x.shape) if d not in dims]
        shape = [*kept[:lead], *(tvm.tirx.const(s, "int64") for s in where), *kept[lead:]]

        def element(*at: Any) -> Any:
            place, others = at[lead : lead + len(where)], iter((*at[:lead], *at[lead + len(where) :]))
            chosen = {d: _wrapped(index(*_aligned(place, index)), x.shape[d]) for d, index in zip(dims, indices, strict=True)}
            return x(*[chosen[d] if d in chosen else next(others) for d in range(_rank(x))])

        return tvm.te.compute(shape, element, name="index")

    return importer.block_builder.emit_te(compute, importer.env[node.args[0]], *tensors)


def _windows(node: fx.Node, importer: Any) -> Any:
    """Windows of some elements, `step` apart, along a dimension; the places inside a window become the last dimension."""
    dim, _, step = (int(cast("int", a)) for a in node.args[1:4])
    shape = [tvm.tirx.const(int(s), "int64") for s in node.meta["val"].shape]

    def compute(x: Any) -> Any:
        d = dim % _rank(x)
        return tvm.te.compute(shape, lambda *at: x(*at[:d], at[d] * step + at[-1], *at[d + 1 : -1]), name="windows")

    return importer.block_builder.emit_te(compute, importer.env[node.args[0]])


def _fold(node: fx.Node, importer: Any) -> Any:
    """Sums of windows where they overlap: every element adds up the places of the windows that it lies in."""
    _, window, dilation, padding, stride = (cast("list[int]", a) for a in node.args[1:6])
    shape = [int(s) for s in node.meta["val"].shape]
    counts = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, d, p, s in zip(shape[-2:], window, dilation, padding, stride, strict=True)
    ]

    def compute(x: Any) -> Any:
        def element(*at: Any) -> Any:
            taps = [tvm.te.reduce_axis((0, k), "tap") for k in window]
            starts = [at[len(shape) - 2 + d] + padding[d] - taps[d] * dilation[d] for d in (0, 1)]
            inside = [tvm.tirx.all(y >= 0, y % s == 0, y < s * n) for y, s, n in zip(starts, stride, counts, strict=True)]
            place = tvm.tirx.floordiv(starts[0], stride[0]) * counts[1] + tvm.tirx.floordiv(starts[1], stride[1])
            row = (at[-3] * window[0] + taps[0]) * window[1] + taps[1]
            value = tvm.tirx.if_then_else(tvm.tirx.all(*inside), x(*at[:-3], row, place), tvm.tirx.const(0, x.dtype))
            return tvm.te.sum(value, axis=taps)

        return tvm.te.compute([tvm.tirx.const(s, "int64") for s in shape], element, name="fold")

    return importer.block_builder.emit_te(compute, importer.env[node.args[0]])


def _group_norm(node: fx.Node, importer: Any) -> Any:
    """A group norm that may lack scale and shift; of its three results TVM's importer passes on the first."""
    value, weight, bias, _, channels, _, groups, eps = cast("Any", node.args)
    scale, shift = (
        relax.const(np.full(int(channels), filling, np.float32)) if given is None else importer.env[given]
        for given, filling in ((weight, 1), (bias, 0))
    )
    x = importer.env[value]
    norm = relax.op.nn.group_norm(x, scale, shift, num_groups=groups, channel_axis=1, axes=list(range(2, _rank_of(x))), epsilon=eps)
    return importer.block_builder.emit(norm)


def _rank_of(value: Any) -> int:
    """Number of dimensions of a relax value."""
    return len(value.ty.shape)


def _wrapped(index: Any, size: Any) -> Any:
    """An index counted from the end where it is negative."""
    index = index.astype("int64")
    return tvm.tirx.if_then_else(index < 0, index + size, index)


def _aligned(place: Index, index: Any) -> list[Any]:
    """The indices of a broadcast operand at a place of the result."""
    own = place[len(place) - _rank(index) :]
    return [0 if int(size) == 1 else i for i, size in zip(own, index.shape, strict=True)]


def _broadcast(shapes: list[Any]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    aligned = [(*[1] * (rank - len(s)), *s) for s in shapes]
    return tuple(math.prod({int(s) for s in sizes} - {1}) for sizes in zip(*aligned, strict=True))


OPERATORS: Mapping[str, Converter] = MappingProxyType(
    {
        "amax.default": _extreme(relax.op.max),
        "amin.default": _extreme(relax.op.min),
        **importer_scatter.OPERATORS,
        "clamp.default": _clamp,
        "col2im.default": _fold,
        "cumsum.default": _running(0, tvm.te.sum),
        "cumprod.default": _running(1, tvm.te.comm_reducer(lambda x, y: x * y, lambda dtype: tvm.tirx.const(1, dtype), name="product")),
        "div.Tensor_mode": _quotient,
        "floor_divide.default": _quotient,
        "grid_sampler_2d.default": importer_sample.grid_sample,
        "index.Tensor": _index,
        "native_group_norm.default": _group_norm,
        "sort.default": _sort,
        "sort.stable": _sort,
        "unfold.default": _windows,
    }
)
"""By the importer's name of the operator."""
