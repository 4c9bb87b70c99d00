"""What partitioning has to know about ATen operators: which act index by index, and which only move elements."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import fx

from billhook.ir.program import operator_of

MOVES = frozenset(
    f"aten.{name}"
    for name in (
        "reshape",
        "permute",
        "slice",
        "select",
        "expand",
        "roll",
        "flip",
        "pad",
        "constant_pad_nd",
        "repeat",
        "tile",
        "pixel_shuffle",
    )
)
_UNTAGGED = frozenset(f"aten.{name}" for name in ("hardswish", "log_sigmoid", "masked_fill", "where", "rsub", "to", "_to_copy"))


def is_pointwise(node: fx.Node) -> bool:
    """Whether a call combines its arguments index by index, with broadcasting."""
    return node.op == "call_function" and (torch.Tag.pointwise in getattr(node.target, "tags", ()) or operator_of(node) in _UNTAGGED)


def is_move(node: fx.Node) -> bool:
    """Whether a call only says where each element of its result is found in its first argument."""
    return node.op == "call_function" and operator_of(node) in MOVES


def is_reshape(node: fx.Node) -> bool:
    """Whether a call leaves the row-major order of elements as it is."""
    return operator_of(node) == "aten.reshape"


def permutation(node: fx.Node) -> tuple[int, ...] | None:
    """The order of a permute in normal form, or None for any other node."""
    return tuple(cast("list[int]", node.args[1])) if operator_of(node) == "aten.permute" else None


def keeps_last(node: fx.Node) -> bool:
    """Whether a move leaves the last dimension alone, so that it commutes with what acts on rows."""
    source = cast("fx.Node", node.args[0])
    before, after = source.meta["val"], node.meta["val"]
    if min(before.ndim, after.ndim) < 2 or before.shape[-1] != after.shape[-1]:
        return False
    name = operator_of(node)
    if name in {"aten.slice", "aten.select"}:
        return cast("int", node.args[1]) % before.ndim != before.ndim - 1
    if name == "aten.roll":
        dims = cast("list[int]", node.args[2]) if len(node.args) > 2 else []
        return len(dims) > 0 and all(d % before.ndim != before.ndim - 1 for d in dims)
    order = permutation(node)
    return is_reshape(node) if order is None else order[-1] == before.ndim - 1


def value_of(node: fx.Node) -> torch.Tensor:
    """The fake tensor of a node's single result."""
    return cast("torch.Tensor", node.meta["val"])


def dims_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's single result."""
    return tuple(int(s) for s in value_of(node).shape)


FUSIBLE = frozenset(
    f"aten.{name}"
    for name in (
        "add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar",
        "relu.default", "relu6.default", "hardtanh.default", "clamp.default", "clamp_min.default", "hardsigmoid.default",
        "hardswish.default", "sigmoid.default", "silu.default", "tanh.default", "gelu.default", "elu.default", "leaky_relu.default",
        "erf.default", "exp.default", "neg.default", "abs.default", "sqrt.default", "rsqrt.default", "square.default",
    )
)  # fmt: skip
"""Pointwise operators that kernels from templates can have behind their anchor (a test compares with the code generator)."""


def fits_behind(node: fx.Node, blocked: bool) -> bool:
    """Whether a pointwise call works on vectors of its result, so that a template can fuse it.

    Every operand must have the result's shape, hold one value, or vary along the vectorised dimension only: the channels
    of a blocked map (also per sample, as a squeeze-and-excitation gate does), the last dimension of a row-major tensor.
    """
    if str(node.target) not in FUSIBLE or value_of(node).dtype != torch.float32:
        return False
    return all(_fits(a, dims_of(node), blocked) for a in node.args if isinstance(a, fx.Node))


def _fits(operand: fx.Node, result: tuple[int, ...], blocked: bool) -> bool:
    shape = dims_of(operand)
    if value_of(operand).dtype != torch.float32 or len(shape) > len(result):
        return False
    if shape == result or all(size == 1 for size in shape):
        return True
    axis = 1 if blocked else len(result) - 1
    aligned = (1,) * (len(result) - len(shape)) + shape
    others = [size for d, size in enumerate(aligned) if d != axis]
    if aligned[axis] != result[axis]:
        return False
    if operand.op == "get_attr":
        return all(size == 1 for size in others)
    return blocked and shape == (*result[:2], *(1 for _ in result[2:]))


def dtype_name(node: fx.Node) -> str:
    """Element type of a node's single result, as in "float32"."""
    return str(value_of(node).dtype).removeprefix("torch.")


def bound(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
    """The arguments of an ATen call in schema order with defaults filled in, and the keyword-only ones by name."""
    schema = target._schema.arguments
    given = {a.name: v for a, v in zip(schema, args, strict=False)} | dict(kwargs)
    values = [(a, given.get(a.name, a.default_value)) for a in schema]
    return tuple(v for a, v in values if not a.kwarg_only), tuple((a.name, v) for a, v in values if a.kwarg_only)
