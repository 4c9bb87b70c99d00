"""The cut: a Program and a plan give a smaller Program, with every member sliced and every shape constant re-evaluated."""

from collections.abc import Container, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from billhook.ir.dims import Dim, Leaf, extent, kept_mask, leaves
from billhook.ir.plan import Plan
from billhook.ir.program import Program, operator_of, state_of, tensor_args, writes_in_place

from .module import Materialised, TrainableGraph
from .rebuild import Sizes, apply_edit, batch_input, describe_values

Masks = Mapping[str, NDArray[np.bool_]]


def cut_graph(program: Program, plan: Plan, state: Mapping[str, torch.Tensor] | None = None) -> TrainableGraph:
    """The cut network as a trainable GraphModule with the original parameter names, free in the batch size.

    Removed indices are gone from every member. Where a branch is removed whole (size 0), what summed over it becomes
    its bias or zero. The input program is not changed; tensors that no removed axis touches are shared, not copied.
    state: what `cut_state` gives, where the caller has it.
    """
    cutter = _Cutter(program, plan)
    module = TrainableGraph(cut_state(program, plan) if state is None else state, cutter.graph())
    describe_values(module, cutter.shapes())
    return module


def cut_nodes(program: Program, plan: Plan) -> Materialised:
    """What `cut_graph` is made of: its state and its graph, and the node that stands for each dense one that is left."""
    cutter = _Cutter(program, plan)
    graph = cutter.graph()
    return Materialised(cut_state(program, plan), graph, cutter.mapping)


def cut_state(program: Program, plan: Plan) -> dict[str, torch.Tensor]:
    """Sliced parameters, buffers and constants by name; tied tensors stay one tensor."""
    kept = _Kept(plan.masks(program))
    done: dict[int, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for node in program.nodes():
        if node.op == "get_attr" and str(node.target) not in state:
            tensor = state_of(program.graph, str(node.target))
            if id(tensor) not in done:
                done[id(tensor)] = _sliced(tensor, program.types[node.name], kept)
            state[str(node.target)] = done[id(tensor)]
    return state


class _Kept:
    """The positions that stay of each dimension, found once for all tensors that have it."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self._known: dict[int, torch.Tensor | None] = {}  # by identity: the program keeps its dimensions

    def of(self, dim: Dim) -> torch.Tensor | None:
        """Positions in order, or None where all stay."""
        if id(dim) not in self._known:
            touched = touches(dim, self.masks)
            self._known[id(dim)] = torch.from_numpy(np.flatnonzero(kept_mask(dim, self.masks))) if touched else None
        return self._known[id(dim)]


def _sliced(tensor: torch.Tensor, dims: tuple[Dim, ...], kept: _Kept) -> torch.Tensor:
    """The tensor without the removed indices; the same object where nothing is removed."""
    result = tensor.detach()
    for i, dim in enumerate(dims):
        positions = kept.of(dim)
        if positions is not None:
            result = result.index_select(i, positions.to(tensor.device))
    if result.shape == tensor.shape:
        return tensor
    return torch.nn.Parameter(result, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else result


def touches(dim: Dim, names: Container[str | None]) -> bool:
    """Whether the dimension contains one of the given axes."""
    if isinstance(dim, Leaf):
        return dim.name in names
    return any(leaf.name in names for leaf in leaves(dim))


class _Cutter:
    """One pass over the graph, in order."""

    def __init__(self, program: Program, plan: Plan) -> None:
        self.program, self.sizes = program, plan.sizes()
        self.removed = {name for name, size in self.sizes.items() if size == 0}
        self.new = fx.Graph()
        self.mapping: dict[fx.Node, fx.Node] = {}
        self.empty: set[fx.Node] = set()

    def graph(self) -> fx.Graph:
        batch = batch_input(self.program)
        extents = Sizes(self.new, self.sizes, None)
        for node in self.program.nodes():
            if self._is_empty(node):
                self.empty.add(node)
                if node.op != "get_attr":
                    continue
            self.mapping[node] = self._emit(node, extents)
            if node is batch:
                extents = Sizes(self.new, self.sizes, self.mapping[node])
        self.new.set_codegen(self.program.graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
        self.new.eliminate_dead_code(is_impure_node=_must_stay)  # checks the graph as well
        return self.new

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and element type of every new node whose dimensions are known, at the captured batch size."""
        found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        extents: dict[int, int] = {}  # by identity: many values share a dimension
        for node, new in self.mapping.items():
            dims, value = self.program.types.get(node.name), node.meta.get("val")
            if dims is not None and isinstance(value, torch.Tensor) and node.op != "output":
                for dim in dims:
                    if id(dim) not in extents:
                        extents[id(dim)] = extent(dim, self.sizes)
                found[new.name] = tuple(extents[id(d)] for d in dims), value.dtype
        return found

    def _is_empty(self, node: fx.Node) -> bool:
        if not self.removed:
            return False
        if any(a in self.empty for a in tensor_args(node)):
            if node.op == "call_function" and node.meta.get("val") is None:
                return True  # it only looked at what is gone
            if node.name not in self.program.types:
                return all(self._is_empty(user) for user in node.users)  # several results, of which none is left
        dims = self.program.types.get(node.name, ())
        return any(d.size > 0 and touches(d, self.removed) and extent(d, self.sizes) == 0 for d in dims)

    def _emit(self, node: fx.Node, extents: Sizes) -> fx.Node:
        if node.op in {"placeholder", "get_attr", "output"}:
            return self.new.node_copy(node, lambda n: self.mapping[n])
        if self.empty and any(a in self.empty for a in tensor_args(node)):
            return self._without(node, extents)
        edit = self.program.edits.get(node.name)
        if edit is None:
            return self.new.node_copy(node, lambda n: self.mapping[n])
        return apply_edit(self.new, node, edit, extents, self.mapping, resized=self._resized(node))

    def _resized(self, node: fx.Node) -> bool:
        around = [node, *tensor_args(node)]
        return any(touches(d, self.sizes) for n in around for d in self.program.types.get(n.name, ()))

    def _without(self, node: fx.Node, extents: Sizes) -> fx.Node:
        """A node some of whose arguments vanished: the rest of a concatenation, or a sum over nothing (its bias)."""
        name = operator_of(node)
        if name in {"aten.cat", "aten.concat", "aten.concatenate"}:
            kept = [self.mapping[v] for v in cast("list[fx.Node]", node.args[0]) if v not in self.empty]
            return self.new.call_function(torch.ops.aten.cat.default, (kept, *node.args[1:]))
        dims = self.program.types[node.name]
        shape = [extents.of(d) for d in dims]
        bias = _bias_of(node)
        if bias is None:
            return self.new.call_function(torch.ops.aten.new_zeros.default, (self._anything(), shape), {"dtype": node.meta["val"].dtype})
        source = self.mapping[bias]
        if name.startswith("aten.conv"):
            rank = len(dims)
            source = self.new.call_function(torch.ops.aten.view.default, (source, [-1] + [1] * (rank - 2)))
        wide = self.new.call_function(torch.ops.aten.expand.default, (source, shape))
        # A value of its own memory, as the dense node's was: the next operator may write into it (`relu_`).
        return self.new.call_function(torch.ops.aten.clone.default, (wide,), {"memory_format": torch.contiguous_format})

    def _anything(self) -> fx.Node:
        """Some tensor of the new graph, for the device that it lies on: state if there is any, else an input."""
        tensors = [n for n in self.mapping if isinstance(n.meta.get("val"), torch.Tensor)]
        return self.mapping[next((n for n in tensors if n.op == "get_attr"), tensors[0])]


def _bias_of(node: fx.Node) -> fx.Node | None:
    name = operator_of(node)
    if name in {"aten.addmm", "aten.baddbmm"}:
        added = node.args[0]
        return added if isinstance(added, fx.Node) else None
    bias = node.args[2] if len(node.args) > 2 and (name == "aten.linear" or name.startswith("aten.conv")) else None
    return bias if isinstance(bias, fx.Node) else None


def _must_stay(node: fx.Node) -> bool:
    """Inputs stay in the signature; writes into a value that others read must stay as well."""
    return node.op in {"placeholder", "output"} or (not node.users and writes_in_place(node))
