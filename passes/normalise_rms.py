"""Root mean square norms that are written out, as x * rsqrt(mean(x ** 2) + eps), become one call of rms_norm.

Written out, the mean is a sum with a divisor of its own, which a cut would leave at the dense width; as a norm it is a statistic over
what is kept, as for LayerNorm. So the cut network's own class, and a checkpoint's, compute the same (Zhang and Sennrich 2019).
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx

from billhook.ir.program import Program, operator_of, shape_of

aten: Any = torch.ops.aten

_SAME = frozenset({"aten.to", "aten._to_copy", "aten.contiguous", "aten.alias", "aten.clone", "aten.float"})


@dataclass(frozen=True, slots=True)
class _Norm:
    """value: what is normalised over its last dimension; steps: the nodes that compute the factor, which nothing else reads."""

    value: fx.Node
    epsilon: float
    steps: tuple[fx.Node, ...]


def recognise_rms_norm(program: Program) -> Program:
    """The program with one call for each written-out norm; the same one where there is none. Cost: linear in the nodes."""
    found = {node: norm for node in program.nodes() if (norm := _norm(node)) is not None}
    if not found:
        return program
    graph, mapping = fx.Graph(), dict[fx.Node, fx.Node]()
    gone = {step.name for norm in found.values() for step in norm.steps}
    for node in program.nodes():
        norm = found.get(node)
        if norm is None:
            mapping[node] = graph.node_copy(node, lambda n: mapping[n])
            continue
        arguments = (mapping[norm.value], [shape_of(node)[-1]], None, norm.epsilon)
        mapping[node] = graph.create_node("call_function", aten.rms_norm.default, arguments, name=node.name)
        mapping[node].meta.update(node.meta)
    graph.set_codegen(program.graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
    graph.eliminate_dead_code(is_impure_node=lambda n: n.name not in gone)
    module = fx.GraphModule(program.graph, graph, "Captured")
    module.meta.update(program.graph.meta)
    return replace(program, graph=module)


def _norm(node: fx.Node) -> _Norm | None:
    """The product of a value and rsqrt(mean(value ** 2, -1, keepdim) + epsilon), in either order."""
    if operator_of(node) != "aten.mul" or len(node.all_input_nodes) != 2:
        return None
    for value, factor in (node.all_input_nodes, node.all_input_nodes[::-1]):
        shifted = _step(factor, "aten.rsqrt")
        mean = _step(shifted, "aten.add")
        square = _step(mean, "aten.mean")
        if shifted is None or mean is None or square is None or not _over_last(mean) or not isinstance(shifted.args[1], (int, float)):
            continue
        squared = _squared(square)
        types = {n.meta["val"].dtype for n in (node, value, factor, squared) if n is not None}
        if squared is not None and _origin(squared) is _origin(value) and len(types) == 1 and not shifted.kwargs:
            return _Norm(value, float(shifted.args[1]), (factor, shifted, mean, square))
    return None


def _step(node: fx.Node | None, operator: str) -> fx.Node | None:
    """The argument of a call of this operator that has one user."""
    if node is None or operator_of(node) != operator or len(node.users) != 1:
        return None
    return node.args[0] if isinstance(node.args[0], fx.Node) else None


def _over_last(mean: fx.Node) -> bool:
    dims = cast("list[int]", mean.args[1] if len(mean.args) > 1 else mean.kwargs.get("dim"))
    rank = len(shape_of(mean))
    return list(dims or []) in ([-1], [rank - 1]) and (mean.args[2] if len(mean.args) > 2 else mean.kwargs.get("keepdim")) is True


def _squared(node: fx.Node) -> fx.Node | None:
    """What a square that nothing else reads is the square of."""
    if len(node.users) != 1 or not isinstance(node.args[0], fx.Node):
        return None
    plain = (operator_of(node) == "aten.pow" and node.args[1] == 2) or operator_of(node) == "aten.square"
    return node.args[0] if plain or (operator_of(node) == "aten.mul" and node.args[0] is node.args[1]) else None


def _origin(node: fx.Node) -> fx.Node:
    """The value before conversions that change nothing."""
    source = node.args[0] if node.args else None
    if operator_of(node) in _SAME and isinstance(source, fx.Node) and source.meta["val"].dtype == node.meta["val"].dtype:
        return _origin(source)
    return node
