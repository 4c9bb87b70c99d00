"""One spelling for each meaning: no identities, explicit literals."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.origin import CallOrigin, Extent, Extents, Path, dims_meta, origin_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import operator_of, shape_of, tensor_args

from .normalise_draft import Draft
from .normalise_tuples import argument

aten: Any = torch.ops.aten

_ALWAYS = {f"aten.{name}" for name in ("alias", "detach", "contiguous", "clone", "lift_fresh", "lift_fresh_copy", "positive")}
_DROPOUT = {f"aten.{name}" for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")}
_CONVERSION = {f"aten.{name}" for name in ("to", "_to_copy", "type_as", "float")}
_TRANSPOSES = ("aten.transpose", "aten.swapaxes", "aten.swapdims", "aten.t")
RESHAPES = {
    f"aten.{name}" for name in ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
}
_SAME_SHAPE = RESHAPES | {
    f"aten.{name}" for name in ("expand", "expand_as", "slice", "narrow", "pad", "constant_pad_nd", "adaptive_avg_pool2d")
}


def drop_identities(draft: Draft) -> None:
    """Remove calls that return an argument unchanged in inference, and assertions."""
    for node in draft.calls():
        name = operator_of(node)
        if "_assert" in name:
            draft.graph.erase_node(node)
        elif name == "aten.slice_scatter" and shape_of(node) == shape_of(cast("fx.Node", node.args[1])):
            draft.replace(node, cast("fx.Node", node.args[1]))  # nothing is left of what it is put into
        elif _is_identity(node, name):
            source = tensor_args(node)[0]
            draft.replace(node, source)


def _is_identity(node: fx.Node, name: str) -> bool:
    arguments = tensor_args(node)
    if name in _ALWAYS:
        return True
    if not arguments or not isinstance(node.meta["val"], torch.Tensor) or not isinstance(arguments[0].meta["val"], torch.Tensor):
        return False
    before, after = arguments[0].meta["val"], node.meta["val"]
    if name in _DROPOUT:
        if node.args[2]:
            raise CaptureError(f"node {node.name} drops at random; capture the model in evaluation mode")
        return True
    if name in _CONVERSION:
        return before.dtype == after.dtype and before.device == after.device
    if name == "aten.permute":
        return [d % before.ndim for d in cast("list[int]", node.args[1])] == list(range(before.ndim))
    if name == "aten.roll":
        return not any(cast("list[int]", node.args[1]))
    return before.shape == after.shape and (name in _SAME_SHAPE or (name == "aten.cat" and len(arguments) == 1))


def spell_literals(draft: Draft) -> None:
    """Make every literal that a width could change explicit, so that equal kernels are spelled equally."""
    for node in draft.calls():
        known = _SPELLINGS.get(operator_of(node))
        if known is not None:
            known(draft, node)


def as_reshape(draft: Draft, node: fx.Node) -> None:
    """A change of shape of any kind as a reshape to an explicit shape."""
    draft.change(
        node,
        aten.reshape.default,
        (tensor_args(node)[0], list(shape_of(node))),
        origin=CallOrigin(None, shape_literals(dims_meta(node.meta))),
    )


def shape_literals(dims: Extents) -> tuple[tuple[Path, Extent], ...]:
    """The literals of a reshape or expand (argument 1) that is to have these extents."""
    return tuple(((1, i), extent) for i, extent in enumerate(dims))


def reshaped(draft: Draft, before: fx.Node, value: fx.Node, shape: Sequence[int], dims: Extents, name: str) -> fx.Node:
    """A reshape to these extents, as a new call before a node."""
    origin = CallOrigin(None, shape_literals(dims))
    return draft.call(before, aten.reshape.default, (value, list(shape)), name=name, dims=dims, origin=origin)


def _spell_expand(draft: Draft, node: fx.Node) -> None:
    literals = shape_literals(dims_meta(node.meta))
    draft.change(node, aten.expand.default, (tensor_args(node)[0], list(shape_of(node))), origin=CallOrigin(None, literals))


def _spell_transpose(draft: Draft, node: fx.Node) -> None:
    """Transpose, t and permute as permute by places counted from the front."""
    draft.change(node, aten.permute.default, (node.args[0], order_of(node)))


def order_of(node: fx.Node) -> list[int] | None:
    """The order of dimensions that a permute, transpose or t gives; None for other calls."""
    name, rank = operator_of(node), node.meta["val"].ndim
    if name == "aten.permute":
        return [int(d) % rank for d in cast("list[int]", node.args[1])]
    if name not in _TRANSPOSES:
        return None
    order = list(range(rank))
    first, second = (-2, -1) if name == "aten.t" else (int(cast("int", a)) for a in node.args[1:3])
    if rank > 1:
        order[first], order[second] = order[second], order[first]
    return order


def _spell_slice(draft: Draft, node: fx.Node) -> None:
    """Bounds counted from the front and inside the dimension."""
    source = cast("fx.Node", node.args[0])
    dim = int(argument(node, 1, "dim", 0)) % source.meta["val"].ndim
    size = shape_of(source)[dim]
    draft.change(node, aten.slice.Tensor, (source, dim, *bounds_of(node, size)), origin=origin_meta(node.meta))


def bounds_of(node: fx.Node, size: int) -> tuple[int, int, int]:
    """Start, end and step of a slice of a dimension of this size, counted from the front and inside it."""
    start, end, step = slice(argument(node, 2, "start", None), argument(node, 3, "end", None), argument(node, 4, "step", 1)).indices(size)
    return start, max(start, end), step


def _spell_conversion(draft: Draft, node: fx.Node) -> None:
    """A change of the element type as that and nothing else: where values lie is not the graph's business."""
    draft.change(node, aten.to.dtype, (tensor_args(node)[0], node.meta["val"].dtype), origin=origin_meta(node.meta))


def _spell_attention(_draft: Draft, node: fx.Node) -> None:
    """The scale as a number: it has to stay when the head width changes."""
    query = cast("fx.Node", node.args[0])
    scale = node.kwargs.get("scale")
    node.kwargs = {**node.kwargs, "scale": 1.0 / math.sqrt(shape_of(query)[-1]) if scale is None else scale}


def _spell_conv(draft: Draft, node: fx.Node) -> None:
    """Padding given by name as numbers, where it is symmetric."""
    if str(node.target) != "aten.conv2d.padding":
        return
    value, weight = cast("fx.Node", node.args[0]), cast("fx.Node", node.args[1])
    stride, dilation = argument(node, 3, "stride", [1, 1]), argument(node, 5, "dilation", [1, 1])
    spread = [d * (k - 1) for d, k in zip(dilation, shape_of(weight)[2:], strict=True)]
    if argument(node, 4, "padding", "valid") == "valid":
        spread = [0, 0]
    if any(s % 2 for s in spread):
        return
    arguments = (
        value,
        weight,
        argument(node, 2, "bias", None),
        stride,
        [s // 2 for s in spread],
        dilation,
        argument(node, 6, "groups", 1),
    )
    draft.change(node, aten.conv2d.default, arguments, origin=origin_meta(node.meta))


def _spell_copy(draft: Draft, node: fx.Node) -> None:
    """What is written over a tensor, in its type and shape."""
    goal, source = node.meta["val"], cast("fx.Node", node.args[1])
    if source.meta["val"].dtype != goal.dtype:
        dims = dims_meta(source.meta)
        source = draft.call(node, aten.to.dtype, (source, goal.dtype), name=f"{node.name}_converted", dims=dims)
    literals = shape_literals(dims_meta(node.meta))
    draft.change(node, aten.expand.default, (source, list(shape_of(node))), origin=CallOrigin(None, literals))


def _spell_fill(draft: Draft, node: fx.Node) -> None:
    """What is filled depends on no values."""
    value = node.args[1] if len(node.args) > 1 else 0
    if not isinstance(value, fx.Node):
        draft.change(node, aten.full_like.default, (node.args[0], value))


def _spell_cat(draft: Draft, node: fx.Node) -> None:
    """Without the operands that hold nothing."""
    values = cast("list[fx.Node]", node.args[0])
    kept = [v for v in values if v.meta["val"].numel()]
    if 0 < len(kept) < len(values):
        draft.change(node, node.target, (kept, *node.args[1:]), kwargs=node.kwargs, origin=origin_meta(node.meta))


def _spell_instance_norm(draft: Draft, node: fx.Node) -> None:
    """An instance norm is a group norm of as many groups as channels, or in evaluation with running statistics a batch norm."""
    value, weight, bias, mean, variance, own, momentum, eps = node.args[:8]
    if own:
        channels = dims_meta(cast("fx.Node", value).meta)[1]
        arguments = (value, shape_of(cast("fx.Node", value))[1], weight, bias, eps, True)
        draft.change(node, aten.group_norm.default, arguments, origin=CallOrigin(None, (((1,), channels),)))
    else:
        draft.change(node, aten.batch_norm.default, (value, weight, bias, mean, variance, False, momentum, eps, True))


_SPELLINGS: dict[str, Callable[[Draft, fx.Node], None]] = {
    **dict.fromkeys(RESHAPES, as_reshape),
    **dict.fromkeys(("aten.expand", "aten.expand_as"), _spell_expand),
    **dict.fromkeys((*_TRANSPOSES, "aten.permute"), _spell_transpose),
    **dict.fromkeys(_CONVERSION, _spell_conversion),
    "aten.cat": _spell_cat,
    "aten.copy": _spell_copy,
    "aten.fill": _spell_fill,
    "aten.zero": _spell_fill,
    "aten.slice": _spell_slice,
    "aten.conv2d": _spell_conv,
    "aten.instance_norm": _spell_instance_norm,
    "aten.scaled_dot_product_attention": _spell_attention,
}
