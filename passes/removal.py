"""Which axes may go entirely: size 0 must leave a path from the inputs to every output."""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import networkx as nx

from billhook.ir.axis import Axis
from billhook.ir.dims import Dim, extent
from billhook.ir.program import Program, tensor_args

Flow: TypeAlias = "nx.DiGraph[str]"
_queries: Any = nx  # whose functions are typed in part only


def removable_axes(program: Program) -> tuple[Axis, ...]:
    """Prunable axes whose size 0 is meaningful (their readers sum over them) and leaves the outputs fed by the inputs.

    Whether several of them may go together is for `keeps_paths` to say: two parallel branches may each go alone.
    """
    flow = data_flow(program)
    return tuple(axis for axis in program.axes if axis.prunable and axis.additive and keeps_paths(program, {axis.name}, flow))


def keeps_paths(program: Program, removed: Collection[str], flow: "Flow | None" = None) -> bool:
    """Whether every output that depends on an input still does when these axes have size 0."""
    graph: Flow = flow if flow is not None else data_flow(program)
    sizes = dict.fromkeys(removed, 0)
    alive: Flow = _queries.restricted_view(graph, [n for n in graph if _vanishes(program.types.get(n, ()), sizes)], [])
    outputs = [n for n in graph.predecessors("output") if graph.nodes[n]["fed"]]
    return all(name in alive and _fed(alive, name) for name in outputs)


def data_flow(program: Program) -> Flow:
    """Which value feeds which; every node says whether an input reaches it (`fed`)."""
    graph: Flow = nx.DiGraph()
    inputs: list[str] = []
    for node in program.nodes():
        graph.add_node(node.name, fed=False, input=node.op == "placeholder")
        if node.op == "placeholder":
            inputs.append(node.name)
        graph.add_edges_from((arg.name, node.name) for arg in tensor_args(node))
    for name in inputs:
        for reached in {name, *_reach(graph, name)}:
            graph.nodes[reached]["fed"] = True
    return graph


def _reach(graph: "Flow", name: str) -> set[str]:
    found: set[str] = _queries.descendants(graph, name)
    return found


def _sources(graph: "Flow", name: str) -> set[str]:
    found: set[str] = _queries.ancestors(graph, name)
    return found


def _fed(graph: "Flow", name: str) -> bool:
    return any(graph.nodes[n]["input"] for n in {name, *_sources(graph, name)})


def _vanishes(dims: tuple[Dim, ...], sizes: Mapping[str, int]) -> bool:
    return any(d.size > 0 and extent(d, sizes) == 0 for d in dims)
