"""Writes in place become values of their own, where no other view of the written memory is read afterwards."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from ..ir.errors import CaptureError
from ..ir.program import tensor_args
from .normalise_draft import Draft


def is_write(node: fx.Node) -> bool:
    """Whether a call writes into one of its arguments."""
    return node.op == "call_function" and bool(list(written(node)))


def written(node: fx.Node) -> Iterator[fx.Node]:
    """The arguments that a call writes into."""
    schema = getattr(node.target, "_schema", None)
    for place, argument in enumerate(schema.arguments if schema else ()):
        value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, fx.Node):
            yield value


def memory(draft: Draft) -> dict[fx.Node, fx.Node]:
    """For every node, the node that first made the memory which it may share (by the operators' schemas)."""
    owner: dict[fx.Node, fx.Node] = {}
    for node in draft.nodes():
        source = _viewed(node)
        owner[node] = node if source is None else owner[source]
    return owner


def _viewed(node: fx.Node) -> fx.Node | None:
    """The argument whose memory a call's result may share."""
    if node.op != "call_function":
        return None
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # operator.getitem
        return next(iter(tensor_args(node)), None)
    if not any(result.alias_info is not None for result in schema.returns):
        return None
    shared = [a for a, argument in zip(node.args, schema.arguments, strict=False) if argument.alias_info is not None and isinstance(a, fx.Node)]
    return shared[0] if shared else None


def functionalise(draft: Draft) -> None:
    """Replace every in-place operator by its functional form; later readers of the written value read the new one.

    Raises CaptureError where another view of the same memory, or state, would have to change as well.
    """
    owner, latest, same = memory(draft), dict[fx.Node, fx.Node](), dict[fx.Node, fx.Node]()
    order = {node: i for i, node in enumerate(draft.graph.nodes)}
    readers = {node: list(node.users) for node in draft.graph.nodes}
    for node in list(draft.calls()):
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda n: latest.get(n, n))
        targets = list(written(node))
        if not targets:
            continue
        value = targets[0]
        first = same.get(value, value)
        _check(node, first, owner, order, readers, {n for n in order if same.get(n, n) is first})
        same[node] = first
        for old in [n for n, f in same.items() if f is first] + [first]:
            latest[old] = node
        node.target = _functional(node)
    output = next(iter(reversed(draft.graph.nodes)))
    output.args = fx.map_arg(output.args, lambda n: latest.get(n, n))


def _check(
    node: fx.Node, first: fx.Node, owner: dict[fx.Node, fx.Node], order: dict[fx.Node, int], readers: dict[fx.Node, list[fx.Node]], versions: set[fx.Node]
) -> None:
    if owner[first].op == "get_attr":
        raise CaptureError(f"node {node.name} writes into the state {owner[first].target}; a compiled network keeps no state between calls")
    for other, base in owner.items():
        if base is owner[first] and other not in versions and order[other] < order[node] and any(order[r] > order[node] for r in readers[other]):
            raise CaptureError(f"node {node.name} ({node.target}) writes into memory that {other.name} shares and that is read later; write it out of place")


def _functional(node: fx.Node) -> Any:
    """The operator that computes the same value without writing."""
    namespace, name, overload = str(node.target).split(".")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if packet is None or not name.endswith("_") or overload not in packet.overloads():
        raise CaptureError(f"node {node.name}: {node.target} has no form that does not write in place; write it out of place")
    return getattr(packet, overload)
