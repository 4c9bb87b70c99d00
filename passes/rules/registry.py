"""The table of operator rules: one rule for each ATen operator, whatever module or model it comes from."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import fx

from .context import Context, Result

Rule: TypeAlias = Callable[[Context, fx.Node], Result]

_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators by qualified name, all overloads: "aten.add" covers add.Tensor, add_.Scalar, ..."""

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def register_rule(op: Any, function: Rule) -> None:
    """Teach Billhook a custom operator: `op` is a torch operator (packet or overload) or a Python function in the graph.

    function(ctx, node) states equations between the terms of the node's arguments (`ctx.dims`, `ctx.equate`, ...) and
    returns one term for each dimension of the result (a list of those for several results).
    """
    _RULES[op_name(op)] = function


def forget_rule(op: Any) -> None:
    """Undo `register_rule`: the operator is refused again. Raises KeyError if it has no rule."""
    del _RULES[op_name(op)]


def find_rule(op: Any) -> Rule | None:
    """The rule of an operator; an in-place form falls back on its functional form."""
    name = op_name(op)
    found = _RULES.get(name)
    if found is None and name.endswith("_"):
        found = _RULES.get(name.rstrip("_"))
    return found


def op_name(op: Any) -> str:
    """Qualified name without the overload: "aten.conv2d", "mylib.op", "_operator.getitem"."""
    packet = getattr(op, "overloadpacket", op)
    if hasattr(packet, "_qualified_op_name"):
        return str(packet)
    return f"{getattr(op, '__module__', '')}.{getattr(op, '__qualname__', op)}"
