"""Writes in place become values of their own, where no other view of the written memory is read afterwards."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from billhook.ir.errors import CaptureError
from billhook.ir.program import tensor_args

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
        source = viewed(node)
        owner[node] = node if source is None else owner[source]
    return owner


def viewed(node: fx.Node) -> fx.Node | None:
    """The argument whose memory a call's result may share."""
    if node.op != "call_function":
        return None
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # operator.getitem: a part of what shares memory, or a tensor of its own
        source = next(iter(tensor_args(node)), None)
        return source if source is not None and viewed(source) is not None else None
    if not any(result.alias_info is not None for result in schema.returns):
        return None
    shared = [
        a for a, argument in zip(node.args, schema.arguments, strict=False) if argument.alias_info is not None and isinstance(a, fx.Node)
    ]
    return shared[0] if shared else None


def functionalise(draft: Draft, *, partly: bool = False) -> None:
    """Replace every in-place operator by its functional form; later readers of the written value read the new one.

    partly: leave memory alone that another view reads after a write. Otherwise, and for writes into state, that raises
    CaptureError.
    """
    owner, original = memory(draft), _originals(draft)
    refused = _conflicts(draft, owner, original)
    if refused and not partly:
        raise CaptureError(next(iter(refused.values())))
    latest: dict[fx.Node, fx.Node] = {}
    for node in draft.nodes():
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda n: latest.get(n, n))
        if node not in original or owner[node] in refused:
            continue
        first = original[node]
        latest.update(dict.fromkeys([first, *(n for n, f in original.items() if f is first)], node))
        node.target = functional(node)


def _originals(draft: Draft) -> dict[fx.Node, fx.Node]:
    """For every in-place call, the value of which its result is a newer version."""
    original: dict[fx.Node, fx.Node] = {}
    for node in draft.calls():
        for target in written(node):
            original[node] = original.get(target, target)
    return original


def _conflicts(draft: Draft, owner: dict[fx.Node, fx.Node], original: dict[fx.Node, fx.Node]) -> dict[fx.Node, str]:
    """Memory whose writes cannot become values, with the reason."""
    order = {node: i for i, node in enumerate(draft.graph.nodes)}
    found: dict[fx.Node, str] = {}
    for node, first in original.items():
        base = owner[first]
        if base.op == "get_attr":
            found[base] = f"node {node.name} writes into the state {base.target}; a compiled network keeps no state between calls"
        for other, place in order.items():
            version = other is first or original.get(other) is first
            if owner[other] is base and not version and place < order[node] and any(order[r] > order[node] for r in other.users):
                found[base] = (
                    f"node {node.name} ({node.target}) writes into memory that {other.name} shares, read later; do it out of place"
                )
    return found


def functional(node: fx.Node) -> Any:
    """The operator that computes the same value without writing."""
    namespace, name, overload = str(node.target).split(".")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if packet is None or not name.endswith("_") or overload not in packet.overloads():
        raise CaptureError(f"node {node.name}: {node.target} has no form that does not write in place; write it out of place")
    return getattr(packet, overload)
