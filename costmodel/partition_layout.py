"""Layout assignment: which values are channel-blocked. Feature maps that templates make are; everything else is row-major."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from billhook.ir.program import operator_of, tensor_args

from .operators import FUSIBLE, dims_of, fits_behind, is_pointwise, value_of

_POOLS = {"aten.max_pool2d", "aten.avg_pool2d", "aten.adaptive_avg_pool2d"}


def is_map(node: fx.Node) -> bool:
    """Whether a value is a float32 [N, C, H, W] tensor, the only kind that can be channel-blocked."""
    return isinstance(node.meta["val"], torch.Tensor) and value_of(node).ndim == 4 and value_of(node).dtype == torch.float32


def is_conv(node: fx.Node) -> bool:
    """Whether a template makes this convolution: two-dimensional, with constant weights."""
    if str(node.target) != "aten.conv2d.default" or not is_map(node):
        return False
    bias = node.args[2] if len(node.args) > 2 else None
    return not any(isinstance(a, fx.Node) and a.op != "get_attr" for a in (node.args[1], bias))


def is_grouped(node: fx.Node) -> bool:
    """Whether this is a convolution whose outputs read a part of the input channels each."""
    return bool(is_conv(node) and len(node.args) > 6 and node.args[6] != 1)


def is_group_norm(node: fx.Node) -> bool:
    """Whether a template makes this group norm, given a blocked input."""
    source = node.args[0] if node.args else None
    if operator_of(node) != "aten.group_norm" or not isinstance(source, fx.Node) or not is_map(source):
        return False
    return not any(isinstance(a, fx.Node) and a.op != "get_attr" for a in node.args[1:])


def is_pool(node: fx.Node) -> bool:
    """Whether a template makes this pooling, given a blocked input."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or not is_map(source):
        return False
    if operator_of(node) == "aten.mean":
        dims = node.args[1] if len(node.args) > 1 else None
        return isinstance(dims, Sequence) and sorted(d % 4 for d in cast("Sequence[int]", dims)) == [2, 3] and not node.kwargs.get("dtype")
    return operator_of(node) in _POOLS


def is_channel_cat(node: fx.Node) -> bool:
    """Whether a template makes this concatenation: distinct maps along the channels, in any layouts."""
    if operator_of(node) != "aten.cat" or not is_map(node):
        return False
    values = tensor_args(node)
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return dim in (1, -3) and len(set(values)) == len(values) and all(map(is_map, values))


def blocked_values(graph: fx.Graph) -> frozenset[fx.Node]:
    """The values that are stored channel-blocked."""
    blocked: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and _is_blocked(node, blocked):
            blocked.add(node)
    return frozenset(blocked)


def _is_blocked(node: fx.Node, blocked: set[fx.Node]) -> bool:
    if not is_map(node):
        return False
    if is_conv(node):
        return True
    if is_pool(node) or is_group_norm(node):
        return node.args[0] in blocked
    if is_channel_cat(node):
        return any(a in blocked for a in tensor_args(node)) and any(_may_read_blocked(r) for r in node.users)
    if is_pointwise(node) and fits_behind(node, blocked=True):
        return any(a in blocked and dims_of(a) == dims_of(node) for a in tensor_args(node))
    return False


def _may_read_blocked(reader: fx.Node) -> bool:
    return any(f(reader) for f in (is_conv, is_pool, is_group_norm, is_channel_cat)) or str(reader.target) in FUSIBLE
