"""Attention written out as products and a softmax becomes one scaled_dot_product_attention call.

One anchor for all spellings: a kernel that never stores the attention weights can then serve every model.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.operators import dims_of, is_reshape, permutation, value_of
from billhook.costmodel.origin import CallOrigin, dims_meta
from billhook.ir.program import operator_of

from .normalise_draft import Draft
from .normalise_operators import shape_literals

aten: Any = torch.ops.aten


@dataclass(slots=True)
class _Scores:
    """What goes into the softmax: scale * (query @ key^T) + sum(biases)."""

    product: fx.Node
    scale: float = 1.0
    biases: list[fx.Node] = field(default_factory=list[fx.Node])


def recognise_attention(draft: Draft) -> None:
    """Rewrite matmul(softmax(scale * matmul(q, k^T) + bias), v) wherever nothing else reads what lies between."""
    for node in draft.calls():
        _unwrap_sum(draft, node)
    draft.remove_dead()
    for node in draft.calls():
        weights = node.args[0] if operator_of(node) in {"aten.matmul", "aten.bmm"} else None
        if isinstance(weights, fx.Node) and _is_softmax(weights) and len(weights.users) == 1:
            scores = _scores(cast("fx.Node", weights.args[0]))
            if scores is not None:
                _rewrite(draft, node, scores)
    draft.remove_dead()


def _unwrap_sum(draft: Draft, node: fx.Node) -> None:
    """reshape(reshape(y) + constant), back to y's shape, is y + reshaped constant."""
    total = node.args[0] if is_reshape(node) else None
    if not isinstance(total, fx.Node) or str(total.target) != "aten.add.Tensor" or total.kwargs or len(total.users) > 1:
        return
    for wrapped, constant in (total.args[:2], total.args[1::-1]):
        if not (isinstance(wrapped, fx.Node) and isinstance(constant, fx.Node) and constant.op == "get_attr" and is_reshape(wrapped)):
            continue
        value = cast("fx.Node", wrapped.args[0])
        if dims_of(value) != dims_of(node) or dims_of(wrapped) != dims_of(total):
            continue
        inner, outer = dims_meta(wrapped.meta), dims_meta(node.meta)
        whole = draft.call(
            node,
            aten.expand.default,
            (constant, list(dims_of(total))),
            name=f"{node.name}_bias",
            dims=inner,
            origin=CallOrigin(None, shape_literals(inner)),
        )
        shaped = draft.call(
            node,
            aten.reshape.default,
            (whole, list(dims_of(node))),
            name=f"{node.name}_bias",
            dims=outer,
            origin=CallOrigin(None, shape_literals(outer)),
        )
        draft.change(node, aten.add.Tensor, (value, shaped))
        return


def _is_softmax(node: fx.Node) -> bool:
    if operator_of(node) not in {"aten.softmax", "aten._softmax"} or value_of(node).dtype != value_of(cast("fx.Node", node.args[0])).dtype:
        return False
    return cast("int", node.args[1]) in (-1, value_of(node).ndim - 1)


def _scores(node: fx.Node) -> _Scores | None:
    """Follow sums and scalings back to the product of queries and keys."""
    scale, biases = 1.0, list[fx.Node]()
    while len(node.users) == 1 and node.op == "call_function":
        if operator_of(node) in {"aten.matmul", "aten.bmm"}:
            return _Scores(node, scale, biases)
        factor = _factor(node)
        if factor is not None:
            scale *= factor
            node = cast("fx.Node", node.args[0])
            continue
        parts = _sum(node)
        if parts is None or scale != 1.0:
            return None
        node, bias = parts
        biases.append(bias)
    return None


def _factor(node: fx.Node) -> float | None:
    """The number that a call multiplies its first argument by."""
    if len(node.args) > 1 and isinstance(node.args[0], fx.Node) and isinstance(node.args[1], (int, float)):
        if operator_of(node) == "aten.mul":
            return float(node.args[1])
        if str(node.target) == "aten.div.Tensor":
            return 1.0 / float(node.args[1])
    return None


def _sum(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """A sum of scores and a bias as (scores, bias)."""
    if str(node.target) != "aten.add.Tensor" or node.kwargs or not all(isinstance(a, fx.Node) for a in node.args[:2]):
        return None
    first, second = cast("tuple[fx.Node, fx.Node]", node.args[:2])
    for scores, bias in ((first, second), (second, first)):
        if dims_of(scores) == dims_of(node) and operator_of(scores) in {"aten.matmul", "aten.bmm", "aten.add", "aten.mul", "aten.div"}:
            return scores, bias
    return None


def _rewrite(draft: Draft, node: fx.Node, scores: _Scores) -> None:
    query, transposed = cast("tuple[fx.Node, fx.Node]", scores.product.args[:2])
    value, scale = cast("fx.Node", node.args[1]), scores.scale
    if not value_of(query).ndim == value_of(transposed).ndim == value_of(value).ndim >= 3 or not value_of(query).dtype.is_floating_point:
        return
    factor = _factor(query)
    if factor is not None:
        query, scale = cast("fx.Node", query.args[0]), scale * factor
    rank = value_of(transposed).ndim
    swap = [*range(rank - 2), rank - 1, rank - 2]
    order, dims = permutation(transposed), dims_meta(transposed.meta)
    if order is not None and list(order) == swap:
        key = cast("fx.Node", transposed.args[0])
    else:
        key = draft.call(node, aten.permute.default, (transposed, swap), name=f"{transposed.name}_key", dims=tuple(dims[d] for d in swap))
    mask: fx.Node | None = None
    for bias in scores.biases:
        shape = dims_meta(scores.product.meta)
        mask = (
            bias
            if mask is None
            else draft.call(node, aten.add.Tensor, (mask, bias), name=f"{node.name}_mask", dims=_broadcast(mask, bias, shape))
        )
    draft.change(node, aten.scaled_dot_product_attention.default, (query, key, value, mask, 0.0, False), kwargs={"scale": scale})


def _broadcast(first: fx.Node, second: fx.Node, whole: tuple[Any, ...]) -> tuple[Any, ...]:
    """Extents of a sum of two biases: those of the scores where one of them is not repeated."""
    rank = max(len(dims_of(first)), len(dims_of(second)))
    sizes = [[n.meta["val"].shape[d] for n in (first, second) if -d <= n.meta["val"].ndim] for d in range(-rank, 0)]
    return tuple(whole[d] if any(s != 1 for s in sizes[d]) else 1 for d in range(-rank, 0))


_HIDDEN = -1e9  # a bias at most this hides a score


def recognise_causal(draft: Draft) -> None:
    """Where a constant mask hides exactly the keys behind each query, say so instead: kernels then leave out what is hidden."""
    for node in draft.calls():
        mask = node.args[3] if operator_of(node) == "aten.scaled_dot_product_attention" and len(node.args) > 3 else None
        if isinstance(mask, fx.Node) and mask.op == "get_attr" and _is_causal(draft.tensor(mask), node):
            node.args = (*node.args[:3], None, *(*node.args[4:5], 0.0)[:1], True)
    draft.remove_dead()


def _is_causal(mask: torch.Tensor, node: fx.Node) -> bool:
    queries, keys = (dims_of(cast("fx.Node", node.args[i]))[-2] for i in (0, 1))
    if mask.ndim < 2 or tuple(mask.shape) != (*[1] * (mask.ndim - 2), queries, keys):
        return False
    seen = torch.ones(queries, keys, dtype=torch.bool).tril()
    if mask.dtype == torch.bool:
        return torch.equal(mask.reshape(queries, keys), seen)
    bias = mask.reshape(queries, keys)
    return bool((bias[seen] == 0).all() and (bias[~seen] <= _HIDDEN).all())
