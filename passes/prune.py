"""Prune: a plan carried out, in the user's own module class where that proves equal, else as a trainable graph."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from billhook.ir.plan import Plan
from billhook.ir.program import Program, state_of
from billhook.ir.tensors import tensors_in

from .batches import mode
from .cut import cut_graph, cut_state
from .infer import infer_axes
from .module import TrainableGraph, cut_module
from .oracle import relative_error

TOLERANCE = 1e-4  # float32, relative to the largest output


@dataclass(frozen=True)
class Pruned:
    """A smaller network.

    model: trainable; the user's class ("module") where running it equalled the cut graph on the example inputs, else a
    graph of ATen calls ("graph") with the original parameter names; both share their tensors with `program`. Each module of
    the class is in the mode (training or evaluation) of its dense one; the graph starts in evaluation mode.
    """

    model: torch.nn.Module
    form: Literal["module", "graph"]
    plan: Plan
    program: Program
    why_graph: str = ""  # why the user's class could not be used


def carry_out(program: Program, plan: Plan) -> Pruned:
    """Cut the program. The dense model is left as it was."""
    state = cut_state(program, plan)
    graph = cut_graph(program, plan, state)
    small = infer_axes(Program(graph=graph, model=None, example=program.example, origin=program.origin))
    module, why = _own_class(program, plan, graph, state)
    if module is not None:
        graph = _share(graph, module)
        return Pruned(module, "module", plan, replace(small, graph=graph, model=module))
    graph = _apart(graph, program)
    return Pruned(graph, "graph", plan, replace(small, graph=graph, model=graph), why)


def _own_class(
    program: Program, plan: Plan, graph: TrainableGraph, state: Mapping[str, torch.Tensor]
) -> tuple[torch.nn.Module | None, str]:
    if program.model is None or isinstance(program.model, torch.fx.GraphModule):
        return None, "the program has no module class of its own"
    if program.factored:
        return None, "low-rank layers are two, which the class's forward code does not know"
    if any(size == 0 for size in plan.sizes().values()):
        return None, "a branch is removed whole, which the class's forward code does not know"
    sliced: dict[int, torch.Tensor] = {}
    for name, dense in _own_tensors(program.model).items():
        if name in state:
            sliced[id(dense)] = _copy_if_shared(state[name], dense)
    try:
        module = cut_module(program.model, sliced)
        error = _difference(program, module, graph)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError, KeyError) as failure:
        return None, f"its forward code does not run at the new widths: {str(failure).splitlines()[0]}"
    if error > TOLERANCE:
        return None, f"its forward code computes something else at the new widths (relative error {error:.1e})"
    return module, ""


def _own_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    named: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named.update(dict(model.named_buffers(remove_duplicate=False)))
    return named


def _copy_if_shared(tensor: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Tensors that no removed axis touches are copied, so that training the result leaves the dense model alone."""
    if tensor is not dense:
        return tensor
    with torch.no_grad():
        return torch.nn.Parameter(dense.clone(), dense.requires_grad) if isinstance(dense, torch.nn.Parameter) else dense.clone()


def _difference(program: Program, module: torch.nn.Module, graph: TrainableGraph) -> float:
    args, kwargs = program.example
    with torch.no_grad(), mode(module, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = (tensors_in(m(*args, **kwargs)) for m in (module, graph))
    return relative_error(mine, theirs) if len(mine) == len(theirs) else float("inf")


def _share(graph: TrainableGraph, module: torch.nn.Module) -> TrainableGraph:
    """The graph reading the module's tensors, so that training one trains the other."""
    own = _own_tensors(module)
    state = {str(n.target): own.get(str(n.target), state_of(graph, str(n.target))) for n in graph.graph.nodes if n.op == "get_attr"}
    return TrainableGraph(state, graph.graph)


def _apart(graph: TrainableGraph, program: Program) -> TrainableGraph:
    """The graph with copies of the tensors that it shares with the dense program; tied tensors stay tied."""
    dense = {id(tensor): _copy_if_shared(tensor, tensor) for tensor in program.state().values()}
    state = {str(n.target): state_of(graph, str(n.target)) for n in graph.graph.nodes if n.op == "get_attr"}
    return TrainableGraph({name: dense.get(id(tensor), tensor) for name, tensor in state.items()}, graph.graph)
