"""Rebuilding a graph at other sizes: shape constants are expressions over axes, evaluated here."""

import functools
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from billhook.ir.dims import BATCH, Concat, Dim, Leaf, Product, extent, leaves
from billhook.ir.program import Edit, Program, SizeOf, state_of


class Sizes:
    """Extents of dimensions in a graph under construction; those that contain the batch become graph nodes."""

    def __init__(self, graph: fx.Graph, sizes: Mapping[str, int], batch: fx.Node | None) -> None:
        self.graph, self.sizes, self.batch = graph, sizes, batch
        self._made: dict[int | str, fx.Node] = {}

    def of(self, dim: Dim) -> int | fx.Node:
        """The extent, as a number where it does not depend on the batch."""
        if self.batch is None or not any(leaf.name == BATCH for leaf in leaves(dim)):
            return extent(dim, self.sizes)
        if isinstance(dim, Leaf):
            return self._batch_size()
        if isinstance(dim, Product):
            rest = math.prod(v for v in map(self.of, dim.factors) if isinstance(v, int))
            nodes = [v for v in map(self.of, dim.factors) if isinstance(v, fx.Node)]
            result: int | fx.Node = rest
            for value in nodes:
                result = value if result == 1 else self._call("mul", value, result)
            return result
        assert isinstance(dim, Concat)
        total: int | fx.Node = 0
        for value in map(self.of, dim.segments):
            total = (
                value
                if total == 0
                else total + value
                if isinstance(total, int) and isinstance(value, int)
                else self._call("add", total, value)
            )
        return total

    def evaluate(self, value: Any) -> Any:
        """Replace every `SizeOf` inside nested arguments."""
        if isinstance(value, SizeOf):
            return self.of(value.dim)
        if isinstance(value, (list, tuple)):
            return [self.evaluate(v) for v in cast("list[Any]", value)]
        return value

    def _batch_size(self) -> fx.Node:
        if BATCH not in self._made:
            self._made[BATCH] = self._node(torch.ops.aten.sym_size.int, (self.batch, 0), "extent_of_batch")
        return self._made[BATCH]

    def _call(self, name: str, *args: Any) -> fx.Node:
        import operator

        return self._node(getattr(operator, name), args, f"extent_{name}")

    def _node(self, function: Any, args: tuple[Any, ...], name: str) -> fx.Node:
        """A node with a name that no captured one has: those keep theirs, by which values are found again."""
        return self.graph.create_node("call_function", function, args, {}, name=name)


def batch_input(program: Program) -> fx.Node | None:
    """A placeholder whose leading dimension is the batch, or None where no dimension is free."""
    for node in program.nodes():
        dims = program.types.get(node.name, ())
        if node.op == "placeholder" and dims and isinstance(dims[0], Leaf) and dims[0].name == BATCH:
            return node
    return None


def apply_edit(graph: fx.Graph, node: fx.Node, edit: Edit, sizes: Sizes, mapping: Mapping[fx.Node, fx.Node], *, resized: bool) -> fx.Node:
    """Emit `node` with its shape constants re-evaluated.

    resized: whether any axis that the node sees was cut; only then is a replacement operator needed.
    """
    if (edit.op is not None or edit.scale is not None) and not resized:
        return graph.node_copy(node, lambda n: mapping[n])
    args = tuple(_map_nodes(sizes.evaluate(a), mapping) for a in edit.args)
    kwargs = {k: _map_nodes(sizes.evaluate(v), mapping) for k, v in edit.kwargs}
    new = graph.create_node("call_function", edit.op or node.target, args, kwargs, name=node.name)
    if edit.scale is not None:
        new = graph.call_function(torch.ops.aten.mul.Tensor, (new, edit.scale))
    return new


def _map_nodes(value: Any, mapping: Mapping[fx.Node, fx.Node]) -> Any:
    """Swap nodes of the old graph for those of the new one; nodes that are new already stay."""
    return fx.map_arg(value, lambda n: mapping.get(n, n))


def describe_values(module: fx.GraphModule, known: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    """Give every node a fake value: those whose shape is known at once, the others by running their operator on fakes.

    Values of equal shape and type are one object: making one costs as much as emitting a node.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = functools.cache(functools.partial(_fake, mode))
    for node in module.graph.nodes:
        if node.name in known:
            node.meta["val"] = fake(*known[node.name])
        elif node.op == "get_attr":
            tensor = state_of(module, str(node.target))
            node.meta["val"] = fake(tuple(tensor.shape), tensor.dtype)
        elif node.op == "call_function":
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
            try:
                with mode, torch.no_grad():
                    node.meta["val"] = node.target(*args, **kwargs)
            except DynamicOutputShapeException:  # as many as at capture: what such an operator sees is never cut
                node.meta["val"] = pytree.tree_map(lambda v: fake(tuple(v.shape), v.dtype), node.meta["val"])


def _fake(mode: FakeTensorMode, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return FakeTensor(mode, torch.empty(shape, dtype=dtype, device="meta"), torch.device("cpu"))
