"""Tables of positions (rotary angles, causal masks) that a model computes from ramps become constants with axes of their own.

What depends on neither inputs nor parameters is computed once, at the sizes of the example. A ramp itself freezes what it
meets, because its values follow from its length; as a constant it is sliced like any other tensor. Plain fills (zeros, ones)
stay calls: they follow the sizes around them, and so the batch.
"""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import fx

from billhook.ir.deferred import DeferredGraphModule
from billhook.ir.program import Program, operator_of, tensor_args, writes_in_place

RAMPS = frozenset({"aten.arange", "aten.linspace", "aten.eye", "aten.tril_indices", "aten.triu_indices", "aten.hann_window"})
MAX_BYTES = 2**28
FOLDED = "folded"  # marks, in `meta`, the state that was computed here


def fold_positions(program: Program) -> Program:
    """The program with every value that is computed from ramps alone stored as a buffer; the same one if there is none."""
    nodes = list(program.nodes())
    constant = _constant_calls(nodes)
    kept = [n for n in nodes if n in constant and any(user not in constant for user in n.users)]
    if not kept:
        return program
    values: dict[fx.Node, Any] = {}
    for node in (n for n in nodes if n in constant):
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
        with torch.no_grad():
            values[node] = cast("Any", node.target)(*args, **kwargs)
    return replace(program, graph=_with_buffers(program, constant, {n: values[n] for n in kept}))


def _constant_calls(nodes: list[fx.Node]) -> set[fx.Node]:
    """Calls that reach back to ramps and numbers only, and that nothing writes into."""
    written = _sources(nodes)
    constant: set[fx.Node] = set()
    for node in nodes:
        if node.op != "call_function" or node in written or writes_in_place(node) or not _small_tensor(node):
            continue
        sources = tensor_args(node)
        if all(s in constant for s in sources) and (sources or operator_of(node) in RAMPS):
            constant.add(node)
    return constant


def _sources(nodes: list[fx.Node]) -> set[fx.Node]:
    """The values that in-place calls write into, and all that those were made from (they may be views of any of it)."""
    stack = [n.args[0] for n in nodes if writes_in_place(n) and n.args and isinstance(n.args[0], fx.Node)]
    found: set[fx.Node] = set()
    while stack:
        here = stack.pop()
        if here not in found:
            found.add(here)
            stack.extend(tensor_args(here))
    return found


def _small_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() * value.element_size() <= MAX_BYTES


def _with_buffers(program: Program, constant: set[fx.Node], values: dict[fx.Node, torch.Tensor]) -> fx.GraphModule:
    """A copy of the graph in which the given calls read buffers, named after the calls."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    state: dict[str, Any] = dict(program.state())
    for node in program.nodes():
        if node in values:
            name = f"folded_{node.name}"
            while name in state:
                name += "_"
            state[name] = values[node].clone()
            mapping[node] = graph.get_attr(name)
            mapping[node].meta.update({**node.meta, FOLDED: True})
        elif node not in constant:
            mapping[node] = graph.node_copy(node, lambda n: mapping[n])
    graph.set_codegen(program.graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
    module = DeferredGraphModule(_Root(program.graph, state), graph, "Captured")
    module.meta.update(program.graph.meta)
    return module


class _Root(torch.nn.Module):
    """Where the new module finds its state: parameters keep their module paths, folded values are buffers."""

    def __init__(self, old: fx.GraphModule, state: dict[str, Any]) -> None:
        super().__init__()
        for name, child in old.named_children():
            self.add_module(name, child)
        for name, tensor in state.items():
            if "." not in name:
                if isinstance(tensor, torch.nn.Parameter):
                    self.register_parameter(name, tensor)
                else:
                    self.register_buffer(name, tensor, persistent=False)
        for name in ("_in_spec", "_out_spec"):
            if hasattr(old, name):
                setattr(self, name, getattr(old, name))
