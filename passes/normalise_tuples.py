"""Operators that return several tensors become operators that return one each: a kernel has one output."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import torch
from torch import fx

from billhook.costmodel.origin import CallOrigin, Extent, Path, SplitAt, dims_meta, origin_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import operator_of

from .normalise_draft import Draft

aten: Any = torch.ops.aten

Parts: TypeAlias = Mapping[fx.Node, int]  # the nodes that read a part of a call's results, and which part
Separate: TypeAlias = Callable[[Draft, fx.Node, Parts], None]


def split_tuples(draft: Draft) -> None:
    """Turn every part of a call's results that is read into a call of its own. CaptureError if no rule says how."""
    for node in draft.calls():
        values: Any = node.meta["val"]
        if not isinstance(values, (list, tuple)) or not node.users:
            continue
        rule = _RULES.get(operator_of(node))
        parts = {n: cast("int", n.args[1]) % len(cast("list[Any]", values)) for n in node.users if _takes_part(n)}
        if rule is None or len(parts) < len(node.users):
            raise CaptureError(f"node {node.name}: {node.target} returns several tensors and has no rule that separates them")
        rule(draft, node, parts)
        if node.users:
            part = next(iter(node.users))
            raise CaptureError(f"node {part.name}: result {part.args[1]} of {node.target} has no operator that computes it alone")


def _takes_part(node: fx.Node) -> bool:
    return str(node.target) == "<built-in function getitem>"


def argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    """An argument of a call, given by place or by name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _split(draft: Draft, node: fx.Node, parts: Parts) -> None:
    dim = int(argument(node, 2, "dim", 0)) % node.meta["val"][0].ndim
    sizes = [int(v.shape[dim]) for v in node.meta["val"]]
    for part, piece in parts.items():
        start = sum(sizes[:piece])
        ends: tuple[tuple[Path, Extent], ...] = (((2,), SplitAt(node.name, piece)), ((3,), SplitAt(node.name, piece + 1)))
        draft.change(part, aten.slice.Tensor, (node.args[0], dim, start, start + sizes[piece], 1), origin=CallOrigin(None, ends))


def _unbind(draft: Draft, node: fx.Node, parts: Parts) -> None:
    for part, piece in parts.items():
        draft.change(part, aten.select.int, (node.args[0], argument(node, 1, "dim", 0), piece))


def _extreme(values: Any, places: Any) -> Separate:
    """The largest or smallest along a dimension, and where it is."""

    def separate(draft: Draft, node: fx.Node, parts: Parts) -> None:
        dim, keep = argument(node, 1, "dim", 0), argument(node, 2, "keepdim", False)
        for part, piece in parts.items():
            if piece == 0:
                draft.change(part, values, (node.args[0], [dim], keep))
            else:
                draft.change(part, places, (node.args[0], dim, keep))

    return separate


def _topk(draft: Draft, node: fx.Node, parts: Parts) -> None:
    _ordered(draft, node, parts, argument(node, 2, "dim", -1), argument(node, 3, "largest", True), cast("int", node.args[1]))


def _sort(draft: Draft, node: fx.Node, parts: Parts) -> None:
    names = [a.name for a in cast("Any", node.target)._schema.arguments]
    dim, descending = (argument(node, names.index(n), n, d) for n, d in (("dim", -1), ("descending", False)))
    _ordered(draft, node, parts, dim, descending, None)


def _ordered(draft: Draft, node: fx.Node, parts: Parts, dim: int, descending: bool, k: int | None) -> None:
    """Places from one argsort, of which the first k count; values are gathered from them."""
    value = cast("fx.Node", node.args[0])
    dim %= max(value.meta["val"].ndim, 1)
    places = draft.call(node, aten.argsort.default, (value, dim, descending), name=f"{node.name}_order", dims=dims_meta(value.meta))
    if k is not None:
        dims = (*dims_meta(value.meta)[:dim], k, *dims_meta(value.meta)[dim + 1 :])
        places = draft.call(node, aten.slice.Tensor, (places, dim, 0, k, 1), name=f"{node.name}_places", dims=dims)
    for part, piece in parts.items():
        if piece == 0:
            draft.change(part, aten.gather.default, (value, dim, places))
        else:
            draft.replace(part, places)


def _moments(spread: Any) -> Separate:
    """A variance or standard deviation, and the mean."""

    def separate(draft: Draft, node: fx.Node, parts: Parts) -> None:
        dims, keep = argument(node, 1, "dim", None), node.kwargs.get("keepdim", False)
        for part, piece in parts.items():
            if piece == 0:
                draft.change(part, spread, (node.args[0], dims), kwargs=node.kwargs)
            else:
                draft.change(part, aten.mean.dim, (node.args[0], dims, keep))

    return separate


def _first(operator: Any) -> Separate:
    """An operator of the same arguments that returns the first result only."""

    def separate(draft: Draft, node: fx.Node, parts: Parts) -> None:
        for part, piece in parts.items():
            if piece == 0:
                draft.change(part, operator, node.args, kwargs=node.kwargs, origin=origin_meta(node.meta))

    return separate


_RULES: dict[str, Separate] = {
    **dict.fromkeys((f"aten.{name}" for name in ("chunk", "split", "split_with_sizes", "tensor_split")), _split),
    "aten.unbind": _unbind,
    "aten.max": _extreme(aten.amax.default, aten.argmax.default),
    "aten.min": _extreme(aten.amin.default, aten.argmin.default),
    "aten.topk": _topk,
    "aten.sort": _sort,
    "aten.var_mean": _moments(aten.var.correction),
    "aten.std_mean": _moments(aten.std.correction),
    "aten.max_pool1d_with_indices": _first(aten.max_pool1d.default),
    "aten.max_pool2d_with_indices": _first(aten.max_pool2d.default),
    "aten.max_pool3d_with_indices": _first(aten.max_pool3d.default),
    "aten.native_layer_norm": _first(aten.layer_norm.default),
}
