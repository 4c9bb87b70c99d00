"""Operators that write or count at places given by tensors, as tensor expressions: TVM 0.27's own cannot be fused with what is before them.

Every element of the result looks for what is written to it: n writes cost n steps for each element along the dimension, which vectorise.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from torch import fx

from .tvm_any import tvm


def _scatter(node: fx.Node, importer: Any) -> Any:
    """A copy with elements, or one value, at places along a dimension; of several writes to one place the last counts."""
    x, dim, index, source = _operands(node, importer)

    def compute(x: Any, index: Any, *given: Any) -> Any:
        def last(*at: Any) -> Any:
            j = tvm.te.reduce_axis((0, index.shape[dim]), "j")
            place = tvm.tirx.const(-1, "int64")
            return tvm.te.max(tvm.tirx.if_then_else(_hits(x, index, dim, at, j), j.var.astype("int64"), place), axis=j)

        writer = tvm.te.compute(x.shape, last, name="writer")

        def element(*at: Any) -> Any:
            written = given[0](*at[:dim], writer(*at), *at[dim + 1 :]) if given else tvm.tirx.const(source, x.dtype)
            return tvm.tirx.if_then_else(writer(*at) >= 0, written, x(*at))

        return tvm.te.compute(x.shape, element, name="scatter")

    return importer.block_builder.emit_te(compute, x, index, *([] if isinstance(source, int | float) else [source]))


def _scatter_add(node: fx.Node, importer: Any) -> Any:
    """A tensor to which elements are added at places along a dimension."""
    x, dim, index, source = _operands(node, importer)

    def compute(x: Any, index: Any, source: Any) -> Any:
        def added(*at: Any) -> Any:
            j = tvm.te.reduce_axis((0, index.shape[dim]), "j")
            value = source(*at[:dim], j, *at[dim + 1 :])
            return tvm.te.sum(tvm.tirx.if_then_else(_hits(x, index, dim, at, j), value, tvm.tirx.const(0, x.dtype)), axis=j)

        total = tvm.te.compute(x.shape, added, name="added")
        return tvm.te.compute(x.shape, lambda *at: x(*at) + total(*at), name="scatter_add")

    return importer.block_builder.emit_te(compute, x, index, source)


def _operands(node: fx.Node, importer: Any) -> tuple[Any, int, Any, Any]:
    """Tensor, dimension counted from the front, places, and what is written."""
    x, dim, index, source = cast("Any", node.args)
    given = importer.env[source] if isinstance(source, fx.Node) else source
    return importer.env[x], int(dim) % max(x.meta["val"].ndim, 1), importer.env[index], given


def _hits(x: Any, index: Any, dim: int, at: tuple[Any, ...], j: Any) -> Any:
    """Whether write j along the dimension is to this place; there may be fewer places than elements in the other dimensions."""
    place = index(*at[:dim], j, *at[dim + 1 :]).astype("int64")
    inside = [at[d] < index.shape[d] for d in range(len(x.shape)) if d != dim and int(index.shape[d]) < int(x.shape[d])]
    if inside:
        place = tvm.tirx.if_then_else(tvm.tirx.all(*inside), place, tvm.tirx.const(-1, "int64"))
    return place == at[dim].astype("int64")


def _histogram(node: fx.Node, importer: Any) -> Any:
    """How many elements lie in each of equal bins between two bounds, the upper one included; others are not counted."""
    bins, low, high = (node.args[i] if len(node.args) > i else d for i, d in ((1, 100), (2, 0), (3, 0)))
    count, low, high = int(cast("int", bins)), float(cast("float", low)), float(cast("float", high))
    if low == high:
        raise ValueError("a histogram between the least and the largest element of data; give bounds")

    def compute(x: Any) -> Any:
        def counted(b: Any) -> Any:
            at = [tvm.te.reduce_axis((0, size), "k") for size in x.shape]
            value = x(*at).astype("float32")
            place = tvm.te.floor((value - low) * (count / (high - low))).astype("int64")
            found = tvm.tirx.any(place == b.astype("int64"), tvm.tirx.all(value == high, b == count - 1))
            return tvm.te.sum(tvm.tirx.if_then_else(found, tvm.tirx.const(1, x.dtype), tvm.tirx.const(0, x.dtype)), axis=at)

        return tvm.te.compute((tvm.tirx.const(count, "int64"),), counted, name="histogram")

    return importer.block_builder.emit_te(compute, importer.env[node.args[0]])


OPERATORS: Mapping[str, Any] = MappingProxyType(
    {
        "histc.default": _histogram,
        "scatter.src": _scatter,
        "scatter.value": _scatter,
        "scatter_add.default": _scatter_add,
    }
)
"""By the importer's name of the operator."""
