"""Batch normalisation in inference: a scale and a shift per channel, folded into the layer before it where that is possible."""

from typing import Any, cast

import torch
from torch import fx

from ..costmodel.operators import operator_name
from ..costmodel.origin import dims_meta
from .normalise_draft import Draft

aten: Any = torch.ops.aten

_FOLDABLE = {"aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.linear"}


def fold_batchnorm(draft: Draft) -> None:
    """Fold each batch norm into the convolution or linear map that only it reads; make the others a product and a sum."""
    for node in draft.calls():
        if operator_name(node) != "aten.batch_norm" or not all(a is None or a.op == "get_attr" for a in _state(node)):
            continue
        scale, shift = _affine(draft, node)
        layer = cast("fx.Node", node.args[0])
        if _can_absorb(layer, node):
            _absorb(draft, layer, scale, shift)
            draft.replace(node, layer)
        else:
            _expand(draft, node, scale, shift)


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


def _can_absorb(layer: fx.Node, norm: fx.Node) -> bool:
    if operator_name(layer) not in _FOLDABLE or len(layer.users) > 1 or str(layer.target).endswith(".padding"):
        return False
    if operator_name(layer) == "aten.linear" and norm.meta["val"].ndim != 2:
        return False  # the channels that the norm sees are not the layer's outputs
    return all(a is None or (isinstance(a, fx.Node) and a.op == "get_attr") for a in (layer.args[1], *layer.args[2:3]))


def _absorb(draft: Draft, layer: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """W' = scale W and b' = scale b + shift, computed in float64."""
    weight = cast("fx.Node", layer.args[1])
    bias = cast("fx.Node | None", layer.args[2] if len(layer.args) > 2 else None)
    kernel = draft.tensor(weight)
    rows = scale.reshape(-1, *[1] * (kernel.ndim - 1))
    base = str(weight.target).rpartition(".")[0]
    prefix = f"{base}." if base else ""
    offset = shift if bias is None else shift + draft.tensor(bias).double() * scale
    new_weight = draft.constant(layer, f"{prefix}folded_weight", (kernel.double() * rows).to(kernel.dtype), dims_meta(weight.meta))
    new_bias = draft.constant(layer, f"{prefix}folded_bias", offset.to(kernel.dtype), dims_meta(weight.meta)[:1])
    layer.args = (layer.args[0], new_weight, new_bias, *layer.args[3:])


def _expand(draft: Draft, node: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """The norm as product and sum with constants of shape [C, 1, ...]."""
    value = cast("fx.Node", node.args[0])
    ones = [1] * (node.meta["val"].ndim - 2)
    dims = dims_meta(node.meta)
    dtype = node.meta["val"].dtype
    factor = draft.constant(node, f"{node.name}.scale", scale.to(dtype).reshape(-1, *ones), (dims[1], *ones))
    summand = draft.constant(node, f"{node.name}.shift", shift.to(dtype).reshape(-1, *ones), (dims[1], *ones))
    product = draft.call(node, aten.mul.Tensor, (value, factor), name=f"{node.name}_scale", dims=dims)
    draft.change(node, aten.add.Tensor, (product, summand))
