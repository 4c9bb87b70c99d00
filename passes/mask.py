"""The mask: the dense network with removed indices silenced, which the cut has to equal.

A mask acts where indices are summed: there a zeroed index contributes nothing. Where an operator takes a statistic over
the axis (LayerNorm, softmax), the reference computes it over the kept indices only and puts the result back in place.
Where an operator picks indices by their values (topk), removed ones get a value that is never picked.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from billhook.ir.dims import Dim, kept_mask
from billhook.ir.plan import Plan
from billhook.ir.program import Program, Read, tensor_args

from .cut import touches
from .module import Materialised, TrainableGraph
from .rebuild import Sizes, apply_edit, batch_input

Masks = Mapping[str, NDArray[np.bool_]]


def mask_graph(program: Program, plan: Plan) -> TrainableGraph:
    """The dense network whose reads see only the kept indices: a trainable module of dense shape."""
    made = mask_nodes(program, plan)
    return TrainableGraph(made.state, made.graph)


def mask_nodes(program: Program, plan: Plan) -> Materialised:
    """What `mask_graph` is made of: its state and its graph, and the node that stands for each dense one."""
    return _Masker(program, plan).nodes()


class _Masker:
    def __init__(self, program: Program, plan: Plan) -> None:
        self.program, self.sizes, self.masks = program, plan.sizes(), plan.masks(program)
        self.new = fx.Graph()
        self.mapping: dict[fx.Node, fx.Node] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        self.reads: dict[str, list[Read]] = {}
        for read in program.reads:
            self.reads.setdefault(read.node, []).append(read)

    def nodes(self) -> Materialised:
        batch = batch_input(self.program)
        dense = Sizes(self.new, {}, None)
        kept = Sizes(self.new, self.sizes, None)
        for node in self.program.nodes():
            self.mapping[node] = self._emit(node, dense, kept)
            if node is batch:
                dense, kept = Sizes(self.new, {}, self.mapping[node]), Sizes(self.new, self.sizes, self.mapping[node])
        self.new.set_codegen(self.program.graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
        self.new.lint()
        return Materialised({**self.program.state(), **self.buffers}, self.new, self.mapping)

    def _emit(self, node: fx.Node, dense: Sizes, kept: Sizes) -> fx.Node:
        if node.op in {"placeholder", "get_attr", "output"}:
            return self.new.node_copy(node, lambda n: self.mapping[n])
        args = tensor_args(node)
        active = [r for r in self.reads.get(node.name, ()) if touches(r.part or self._dims(args[r.position])[r.dim], self.masks)]
        if any(r.statistic and r.fill is None for r in active):
            return self._over_kept(node, kept)
        mapping = dict(self.mapping)
        for read in active:
            source = args[read.position]
            mapping[source] = self._masked(mapping[source], self._dims(source), read)
        edit = self.program.edits.get(node.name)
        if edit is None:
            return self.new.node_copy(node, lambda n: mapping[n])
        return apply_edit(self.new, node, edit, dense, mapping, resized=False)

    def _dims(self, node: fx.Node) -> tuple[Dim, ...]:
        return self.program.types.get(node.name, ())

    def _masked(self, value: fx.Node, dims: tuple[Dim, ...], read: Read) -> fx.Node:
        shape = [1] * len(dims)
        shape[read.dim] = dims[read.dim].size
        mask = self._constant(torch.from_numpy(kept_mask(dims[read.dim], self.masks)).reshape(shape))
        return self.new.call_function(torch.ops.aten.where.ScalarOther, (mask, value, read.fill or 0))

    def _over_kept(self, node: fx.Node, sizes: Sizes) -> fx.Node:
        """Gather the kept indices of every argument, apply the operator, scatter the result (zeros elsewhere)."""
        mapping = dict(self.mapping)
        for arg in dict.fromkeys(tensor_args(node)):
            for i, dim in enumerate(self._dims(arg)):
                if touches(dim, self.masks):
                    index = self._constant(torch.from_numpy(np.flatnonzero(kept_mask(dim, self.masks))))
                    mapping[arg] = self.new.call_function(torch.ops.aten.index_select.default, (mapping[arg], i, index))
        edit = self.program.edits.get(node.name)
        if edit is None:
            result = self.new.node_copy(node, lambda n: mapping[n])
        else:
            result = apply_edit(self.new, node, edit, sizes, mapping, resized=True)
        for i, dim in enumerate(self._dims(node)):
            if touches(dim, self.masks):
                result = self._scattered(result, i, len(self._dims(node)), kept_mask(dim, self.masks))
        return result

    def _scattered(self, value: fx.Node, dim: int, rank: int, mask: NDArray[np.bool_]) -> fx.Node:
        source = np.clip(np.cumsum(mask) - 1, 0, None)
        index = self._constant(torch.from_numpy(source))
        spread = self.new.call_function(torch.ops.aten.index_select.default, (value, dim, index))
        shape = [1] * rank
        shape[dim] = len(mask)
        where = self._constant(torch.from_numpy(mask).reshape(shape))
        return self.new.call_function(torch.ops.aten.where.ScalarOther, (where, spread, 0))

    def _constant(self, value: torch.Tensor) -> fx.Node:
        name = f"_mask_{len(self.buffers)}"
        self.buffers[name] = value
        return self.new.get_attr(name)
