"""Watching values of a graph while it runs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from billhook.ir.dims import Dim, occurrences
from billhook.ir.plan import Plan
from billhook.ir.program import Program, Read, state_of, tensor_args

from .cut import cut_graph

See: TypeAlias = Callable[[torch.Tensor], None]


class _Watch(nn.Module):
    """Hands a value to a callback."""

    def __init__(self, see: See) -> None:
        super().__init__()
        self.see = see

    def forward(self, value: torch.Tensor) -> None:
        self.see(value.detach())


def watched(graph: fx.GraphModule, sees: Mapping[str, See]) -> nn.Module:
    """A copy of the graph over the same tensors, in evaluation mode, which shows the values of the named nodes to their callbacks."""
    copy = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    root: dict[str, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            root[str(node.target)] = state_of(graph, str(node.target))
        mapping[node] = copy.node_copy(node, mapping.__getitem__)
        if node.name in sees:
            root[f"_watch_{node.name}"] = _Watch(sees[node.name])
            copy.call_module(f"_watch_{node.name}", (mapping[node],))
    copy.set_codegen(graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
    return fx.GraphModule(root, copy, "Watched").eval()


def any_batch(program: Program) -> fx.GraphModule:
    """The program's own graph with its own tensors, free in the batch size; node names stay."""
    return cut_graph(program, Plan({}))


def read_values(program: Program, axis: str) -> dict[str, tuple[Read, Dim]]:
    """The values in which an axis is read: name -> a read, and the type of the dimension.

    Those that are summed over; values of which only a statistic is taken where there are no others.
    """
    found: dict[str, tuple[Read, Dim]] = {}
    nodes = {node.name: node for node in program.nodes()}
    for statistic in (False, True):
        for read in program.reads:
            source = tensor_args(nodes[read.node])[read.position]
            dims = program.types.get(source.name, ())
            if read.statistic == statistic and read.dim < len(dims) and any(o.axis == axis for o in occurrences(dims[read.dim])):
                found.setdefault(source.name, (read, dims[read.dim]))
        if found:
            break
    return found
