"""From an exported program to a graph that reads its state by name, without the checks and copies of `ExportedProgram.module`.

That method generates code three times and looks every name up in all modules: together it grows with
the square of the number of layers (12 of 40 seconds for a chain of 1000 blocks). Names, order and metadata are the same.
"""

import copy
import itertools
from typing import Any, cast

import torch
from torch import fx
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo  # pyright: ignore[reportPrivateUsage]

from .deferred import DeferredGraphModule

_STATE = frozenset({InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR})


def unlift(exported: torch.export.ExportedProgram, name: str) -> DeferredGraphModule:
    """A graph module of class `name` whose state is read by get_attr nodes."""
    signature = exported.graph_signature
    inputs, outputs = signature.input_specs, signature.output_specs
    if any(s.kind not in {*_STATE, InputKind.USER_INPUT} for s in inputs) or any(s.kind != OutputKind.USER_OUTPUT for s in outputs):
        whole = exported.module(check_guards=False)
        return DeferredGraphModule(whole, whole.graph, name)
    graph = copy.deepcopy(exported.graph)  # whose names are those of its nodes alone, without what renaming left behind
    placeholders = list(itertools.takewhile(lambda n: n.op == "placeholder", graph.nodes))
    root: dict[str, Any] = {}
    for node, spec in zip(placeholders, inputs, strict=True):
        if spec.kind in _STATE:
            target = cast("str", spec.target)
            root[target] = _tensor(exported, spec, target)
            _read_by_name(graph, node, target)
    root.update(
        (str(n.target), getattr(exported.graph_module, str(n.target)))
        for n in graph.nodes
        if n.op == "get_attr" and str(n.target) not in root
    )
    graph.set_codegen(_codegen(exported))
    return DeferredGraphModule(root, graph, name)


def _tensor(exported: torch.export.ExportedProgram, spec: InputSpec, name: str) -> torch.Tensor:
    constant = spec.kind == InputKind.CONSTANT_TENSOR or spec.persistent is False
    value = cast("torch.Tensor", (exported.constants if constant else exported.state_dict)[name])
    return value.detach() if spec.kind == InputKind.CONSTANT_TENSOR and value.requires_grad else value


def _read_by_name(graph: fx.Graph, placeholder: fx.Node, target: str) -> None:
    with graph.inserting_before(placeholder):
        read = graph.create_node("get_attr", target)
    placeholder.replace_all_uses_with(read)
    graph.erase_node(placeholder)
    read.meta = placeholder.meta


def _codegen(exported: torch.export.ExportedProgram) -> _PyTreeCodeGen:
    """Arguments by the names that the user's forward gives them."""
    spec, result = cast("Any", exported.call_spec.in_spec), exported.call_spec.out_spec
    outermost = exported.module_call_graph[0].signature
    names = (outermost.forward_arg_names if outermost else None) or [
        *(f"arg_{i}" for i in range(spec.child(0).num_children)),
        *spec.child(1).context,
    ]
    return _PyTreeCodeGen(_PyTreeInfo(names, spec, cast("Any", result)))
