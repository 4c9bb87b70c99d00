"""One spelling for each meaning: no identities, no tuples of tensors, explicit literals."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.operators import operator_name
from billhook.costmodel.origin import CallOrigin, Extent, Extents, Path, SplitAt, dims_meta, origin_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import shape_of, tensor_args

from .normalise_draft import Draft

aten: Any = torch.ops.aten

_ALWAYS = {f"aten.{name}" for name in ("alias", "detach", "contiguous", "clone", "lift_fresh", "lift_fresh_copy", "positive")}
_DROPOUT = {f"aten.{name}" for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")}
_CONVERSION = {f"aten.{name}" for name in ("to", "_to_copy", "type_as", "float")}
RESHAPES = {
    f"aten.{name}" for name in ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
}
_SAME_SHAPE = RESHAPES | {
    f"aten.{name}" for name in ("expand", "expand_as", "slice", "narrow", "pad", "constant_pad_nd", "adaptive_avg_pool2d")
}
_SPLITS = {f"aten.{name}" for name in ("chunk", "split", "split_with_sizes", "tensor_split")}


def drop_identities(draft: Draft) -> None:
    """Remove calls that return their first argument unchanged in inference, and assertions."""
    for node in draft.calls():
        name = operator_name(node)
        if "_assert" in name:
            draft.graph.erase_node(node)
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


def split_tuples(draft: Draft) -> None:
    """Turn the parts of a chunk, split or unbind into slices and selects of its input."""
    for node in draft.calls():
        source = node.args[0]
        if str(node.target) != "<built-in function getitem>" or not isinstance(source, fx.Node):
            continue
        name, piece = operator_name(source), cast("int", node.args[1])
        value, piece = cast("fx.Node", source.args[0]), piece % len(source.meta["val"])
        if name in _SPLITS:
            dim = _split_dim(source)
            sizes = [int(v.shape[dim]) for v in source.meta["val"]]
            start = sum(sizes[:piece])
            ends: tuple[tuple[Path, Extent], ...] = (((2,), SplitAt(source.name, piece)), ((3,), SplitAt(source.name, piece + 1)))
            draft.change(node, aten.slice.Tensor, (value, dim, start, start + sizes[piece], 1), origin=CallOrigin(None, ends))
        elif name == "aten.unbind":
            draft.change(node, aten.select.int, (value, _argument(source, 1, "dim", 0), piece))
    for node in draft.calls():
        if isinstance(node.meta["val"], (list, tuple)) and node.users:
            raise CaptureError(f"node {node.name}: {node.target} returns several tensors and has no rule that separates them")


def _split_dim(node: fx.Node) -> int:
    return int(_argument(node, 2, "dim", 0)) % node.meta["val"][0].ndim


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def spell_literals(draft: Draft) -> None:
    """Make every literal that a width could change explicit, so that equal kernels are spelled equally."""
    for node in draft.calls():
        known = _SPELLINGS.get(operator_name(node))
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


def _spell_expand(draft: Draft, node: fx.Node) -> None:
    literals = shape_literals(dims_meta(node.meta))
    draft.change(node, aten.expand.default, (tensor_args(node)[0], list(shape_of(node))), origin=CallOrigin(None, literals))


def _spell_transpose(draft: Draft, node: fx.Node) -> None:
    """Transpose and t as permute."""
    rank = node.meta["val"].ndim
    order = list(range(rank))
    first, second = (-2, -1) if operator_name(node) == "aten.t" else (int(cast("int", a)) for a in node.args[1:3])
    if rank > 1:
        order[first], order[second] = order[second], order[first]
    draft.change(node, aten.permute.default, (node.args[0], order))


def _spell_permute(draft: Draft, node: fx.Node) -> None:
    order = [int(d) % node.meta["val"].ndim for d in cast("list[int]", node.args[1])]
    draft.change(node, aten.permute.default, (node.args[0], order))


def _spell_slice(draft: Draft, node: fx.Node) -> None:
    """Bounds counted from the front and inside the dimension."""
    source = cast("fx.Node", node.args[0])
    dim = int(_argument(node, 1, "dim", 0)) % source.meta["val"].ndim
    size = shape_of(source)[dim]
    start, end, step = slice(_argument(node, 2, "start", None), _argument(node, 3, "end", None), _argument(node, 4, "step", 1)).indices(
        size
    )
    draft.change(node, aten.slice.Tensor, (source, dim, start, max(start, end), step), origin=origin_meta(node.meta))


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
    stride, dilation = _argument(node, 3, "stride", [1, 1]), _argument(node, 5, "dilation", [1, 1])
    spread = [d * (k - 1) for d, k in zip(dilation, shape_of(weight)[2:], strict=True)]
    if _argument(node, 4, "padding", "valid") == "valid":
        spread = [0, 0]
    if any(s % 2 for s in spread):
        return
    arguments = (
        value,
        weight,
        _argument(node, 2, "bias", None),
        stride,
        [s // 2 for s in spread],
        dilation,
        _argument(node, 6, "groups", 1),
    )
    draft.change(node, aten.conv2d.default, arguments, origin=origin_meta(node.meta))


_SPELLINGS: dict[str, Callable[[Draft, fx.Node], None]] = {
    **dict.fromkeys(RESHAPES, as_reshape),
    **dict.fromkeys(("aten.expand", "aten.expand_as"), _spell_expand),
    **dict.fromkeys(("aten.transpose", "aten.swapaxes", "aten.swapdims", "aten.t"), _spell_transpose),
    **dict.fromkeys(_CONVERSION, _spell_conversion),
    "aten.permute": _spell_permute,
    "aten.slice": _spell_slice,
    "aten.conv2d": _spell_conv,
    "aten.scaled_dot_product_attention": _spell_attention,
}
