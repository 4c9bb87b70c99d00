"""Data movement where it costs least: moves leave the way between a linear map and what can be fused behind it.

A kernel of its own only changes where elements lie; beside an operator that is generated anyway (a norm, an attention) the
same move is free. Linear maps act on rows, so what moves rows commutes with them; pointwise operators commute with permutes.
"""

from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.operators import dims_of, is_move, is_pointwise, is_reshape, keeps_last, permutation
from billhook.costmodel.origin import CallOrigin, Extents, dims_meta, origin_meta
from billhook.ir.program import operator_of, tensor_args

from .normalise_draft import Draft
from .normalise_operators import shape_literals

aten: Any = torch.ops.aten


def settle_moves(draft: Draft) -> None:
    """Move rows before linear maps, permutes behind pointwise operators, and merge what then meets."""
    for node in draft.calls():
        if merge_moves(draft, node) is not node:
            continue
        if is_move(node):
            _before_linear(draft, node)
        elif is_pointwise(node):
            _behind_pointwise(draft, node)
    for node in draft.calls():
        merge_moves(draft, node)


def merge_moves(draft: Draft, node: fx.Node) -> fx.Node:
    """Make a reshape of a reshape one reshape, a permute of a permute one permute; the node that now has the value."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or not source.args:
        return node
    first = cast("fx.Node", source.args[0])
    if is_reshape(node) and is_reshape(source):
        node.args = (first, *node.args[1:])
        if dims_of(first) == dims_of(node):
            draft.replace(node, first)
            return first
    outer, inner = permutation(node), permutation(source)
    if outer is not None and inner is not None:
        order = [inner[d] for d in outer]
        if order == sorted(order):
            draft.replace(node, first)
            return first
        draft.change(node, aten.permute.default, (first, order))
    return node


def from_template(node: fx.Node) -> bool:
    """Whether a value comes from a linear map or a convolution, at most with pointwise operators behind it."""
    while is_pointwise(node):
        inputs = [a for a in tensor_args(node) if a.op == "call_function" and dims_of(a) == dims_of(node)]
        if not inputs:
            return False
        node = inputs[0]
    return operator_of(node) == "aten.linear" or operator_of(node).startswith("aten.conv")


def _before_linear(draft: Draft, node: fx.Node) -> None:
    """move(linear(x)) becomes linear(move(x)) where something other than a template can take the move over."""
    layer = cast("fx.Node", node.args[0])
    if operator_of(layer) != "aten.linear" or len(layer.users) > 1 or not keeps_last(node):
        return
    rows = cast("fx.Node", layer.args[0])
    weight = cast("fx.Node", layer.args[1])
    if from_template(rows) or rows.op != "call_function" or _rank(weight) != 2:
        return
    dims = (*dims_meta(node.meta)[:-1], dims_meta(rows.meta)[-1])
    origin, arguments = origin_meta(node.meta), (rows, *node.args[1:])
    if is_reshape(node):
        arguments = (rows, [*dims_of(node)[:-1], dims_of(rows)[-1]])
        origin = CallOrigin(None, shape_literals(dims))
    moved = draft.call(layer, node.target, arguments, name=f"{node.name}_moved", dims=dims, origin=origin)
    draft.change(layer, aten.linear.default, (merge_moves(draft, moved), *layer.args[1:]), dims=dims_meta(node.meta))
    draft.replace(node, layer)


def _rank(node: fx.Node) -> int:
    """Number of dimensions of a node's result."""
    return len(dims_of(node))


def _behind_pointwise(draft: Draft, node: fx.Node) -> None:
    """f(permute(x), y) becomes permute(f(x, y')) where x comes from a linear map that f can then be fused into."""
    for argument in tensor_args(node):
        order = permutation(argument) if argument.op == "call_function" else None
        if order is None or len(argument.users) > 1 or dims_of(argument) != dims_of(node):
            continue
        source = cast("fx.Node", argument.args[0])
        if len(source.users) == 1 and from_template(source) and _rank(source) == _rank(node):
            _permute_after(draft, node, order)
            return


def _permute_after(draft: Draft, node: fx.Node, order: tuple[int, ...]) -> None:
    inverse = tuple(order.index(d) for d in range(len(order)))

    def unpermuted(value: fx.Node) -> fx.Node:
        return _unpermuted(draft, node, value, order, inverse)

    arguments, dims = fx.map_arg(node.args, unpermuted), tuple(dims_meta(node.meta)[d] for d in inverse)
    inner = draft.call(
        node, node.target, arguments, name=f"{node.name}_moved", dims=dims, origin=origin_meta(node.meta), kwargs=node.kwargs
    )
    draft.change(node, aten.permute.default, (inner, list(order)))


def _unpermuted(draft: Draft, before: fx.Node, value: fx.Node, order: tuple[int, ...], inverse: tuple[int, ...]) -> fx.Node:
    """An operand of a pointwise call in the order that it has before the permute."""
    if permutation(value) == order:
        return cast("fx.Node", value.args[0])
    if value.op == "get_attr":
        return _constant_unpermuted(draft, before, value, inverse)
    permuted = tuple(dims_meta(value.meta)[d] for d in inverse)
    return draft.call(before, aten.permute.default, (value, list(inverse)), name=f"{value.name}_permuted", dims=permuted)


def _constant_unpermuted(draft: Draft, before: fx.Node, value: fx.Node, inverse: tuple[int, ...]) -> fx.Node:
    tensor, dims = draft.tensor(value), dims_meta(value.meta)
    lead = len(inverse) - tensor.ndim
    full: Extents = (*[1] * lead, *dims)
    moved = tensor.reshape(*[1] * lead, *tensor.shape).permute(inverse)
    extents = tuple(full[d] for d in inverse)
    while moved.ndim and moved.shape[0] == 1:
        moved, extents = moved[0], extents[1:]
    return draft.constant(before, f"{value.target}_permuted", moved.contiguous(), extents)
