"""Scales and shifts per channel, batch normalisation above all, folded into the layer before them where that is possible."""

from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.operators import dims_of
from billhook.costmodel.origin import dims_meta
from billhook.ir.program import operator_of

from .normalise_draft import Draft

aten: Any = torch.ops.aten

_FOLDABLE = {"aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.linear"}


def fold_batchnorm(draft: Draft) -> None:
    """Fold each batch norm into the convolution or linear map that only it reads; make the others a product and a sum."""
    for node in draft.calls():
        if operator_of(node) != "aten.batch_norm" or not all(a is None or a.op == "get_attr" for a in _state(node)):
            continue
        scale, shift = _affine(draft, node)
        layer = cast("fx.Node", node.args[0])
        rows = operator_of(layer) == "aten.linear" and len(dims_of(node)) != 2  # there the channels are not the layer's outputs
        if _can_absorb(layer) and not rows:
            _absorb(draft, layer, scale, shift)
            draft.replace(node, layer)
        else:
            _expand(draft, node, scale, shift)


def fold_affine(draft: Draft) -> None:
    """Fold products and sums with one constant per channel into the convolution or linear map before them.

    A sum is also folded through a residual: (x + layer) + constant is x + (layer + constant).
    """
    for node in draft.calls():
        found = _with_constant(node)
        if found is None:
            continue
        value, constant = found
        multiplies = operator_of(node) == "aten.mul"
        layer = value if multiplies or _can_absorb(value) else _summand(value)
        vector = None if layer is None or not _can_absorb(layer) else _per_channel(draft, constant, layer)
        if layer is not None and vector is not None:
            neutral = torch.ones_like(vector), torch.zeros_like(vector)
            _absorb(draft, layer, *((vector, neutral[1]) if multiplies else (neutral[0], vector)))
            draft.replace(node, value)


def _with_constant(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The operands of a product or sum of a call's result, of unchanged shape, and a constant."""
    if str(node.target) not in {"aten.mul.Tensor", "aten.add.Tensor"} or node.kwargs.get("alpha", 1) != 1:
        return None
    for value, constant in (node.args[:2], node.args[1::-1]):
        if isinstance(value, fx.Node) and isinstance(constant, fx.Node) and value.op == "call_function" and constant.op == "get_attr":
            return (value, constant) if dims_of(value) == dims_of(node) else None
    return None


def _summand(node: fx.Node) -> fx.Node | None:
    """An operand of a sum, read by nothing else, that can take a constant."""
    if str(node.target) != "aten.add.Tensor" or node.kwargs.get("alpha", 1) != 1 or len(node.users) > 1:
        return None
    return next((a for a in node.args[:2] if isinstance(a, fx.Node) and dims_of(a) == dims_of(node) and _can_absorb(a)), None)


def _per_channel(draft: Draft, constant: fx.Node, layer: fx.Node) -> torch.Tensor | None:
    """A constant that varies along a layer's output channels only, as a float64 vector with one value for each."""
    shape, rank = dims_of(constant), len(dims_of(layer))
    channel = rank - 1 if operator_of(layer) == "aten.linear" else 1
    aligned = (1,) * (rank - len(shape)) + shape
    if any(size != 1 for d, size in enumerate(aligned) if d != channel):
        return None
    return draft.tensor(constant).double().reshape(-1).expand(dims_of(layer)[channel])


def _state(node: fx.Node) -> tuple[fx.Node | None, ...]:
    return cast("tuple[fx.Node | None, ...]", node.args[1:5])


def _affine(draft: Draft, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift per channel, float64."""
    weight, bias, mean, variance = (None if a is None else draft.tensor(a).double() for a in _state(node))
    assert mean is not None
    assert variance is not None
    scale = torch.rsqrt(variance + float(cast("float", node.args[7])))
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _can_absorb(layer: fx.Node) -> bool:
    """Whether a call is a layer with constant weights that one call reads."""
    if operator_of(layer) not in _FOLDABLE or len(layer.users) > 1 or str(layer.target).endswith(".padding"):
        return False
    parameters = [a for a in (layer.args[1], *layer.args[2:3]) if a is not None]
    return all(isinstance(a, fx.Node) and a.op == "get_attr" for a in parameters) and len(dims_of(cast("fx.Node", layer.args[1]))) > 1


def _absorb(draft: Draft, layer: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """W' = scale W and b' = scale b + shift, computed in float64."""
    weight = cast("fx.Node", layer.args[1])
    bias = cast("fx.Node | None", layer.args[2] if len(layer.args) > 2 else None)
    kernel = draft.tensor(weight)
    base = str(weight.target).rpartition(".")[0]
    prefix = f"{base}." if base else ""
    if not bool((scale == 1).all()):
        folded = (kernel.double() * scale.reshape(-1, *[1] * (kernel.ndim - 1))).to(kernel.dtype)
        weight = draft.constant(layer, f"{prefix}folded_weight", folded, dims_meta(weight.meta))
    offset = shift if bias is None else shift + draft.tensor(bias).double() * scale
    new_bias = draft.constant(layer, f"{prefix}folded_bias", offset.to(kernel.dtype), dims_meta(weight.meta)[:1])
    layer.args = (layer.args[0], weight, new_bias, *layer.args[3:])


def _expand(draft: Draft, node: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """The norm as product and sum with constants of shape [C, 1, ...]."""
    value = cast("fx.Node", node.args[0])
    ones = [1] * (len(dims_of(node)) - 2)
    dims, dtype = dims_meta(node.meta), node.meta["val"].dtype
    factor = draft.constant(node, f"{node.name}.scale", scale.to(dtype).reshape(-1, *ones), (dims[1], *ones))
    summand = draft.constant(node, f"{node.name}.shift", shift.to(dtype).reshape(-1, *ones), (dims[1], *ones))
    product = draft.call(node, aten.mul.Tensor, (value, factor), name=f"{node.name}_scale", dims=dims)
    draft.change(node, aten.add.Tensor, (product, summand))
