"""Projections fused into one weight and told apart by a dimension of their own are told apart by position instead.

A dimension of a tensor has one type, so `view(..., 3, heads, width).unbind(...)` ties query, key and value to one width. The same
values, taken as three slices of the projection, have three types: the weight's output becomes q ++ k ++ v, whose widths are axes
of their own. Nothing is copied: the weight stays the one tensor that it was, under its name, and a cut slices each part.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from torch import fx

from billhook.ir.deferred import DeferredGraphModule
from billhook.ir.program import Program, operator_of, shape_of

aten: Any = torch.ops.aten

_VIEWS = frozenset({"aten.view", "aten.reshape", "aten._unsafe_view", "aten.unflatten"})
_MAKERS = frozenset({"aten.linear", "aten.addmm", "aten.mm", "aten.matmul", "aten.conv1d", "aten.conv2d", "aten.conv3d"})
_ORDERS = frozenset({"aten.permute", "aten.transpose", "aten.swapaxes", "aten.movedim", "aten.moveaxis"})
_COPIES = frozenset({"aten.contiguous", "aten.clone", "aten.alias"})

Part: TypeAlias = fx.Node


@dataclass(frozen=True, slots=True)
class _Fused:
    """A view that gives `count` parts a dimension `dim` of their own; they lie in dimension `source` of what is viewed.

    first, last: the view's dimensions that `source` became; inner: indices of one part (after `dim`).
    """

    view: fx.Node
    dim: int
    source: int
    first: int
    last: int
    count: int
    inner: int


def split_fused(program: Program) -> Program:
    """The program with fused projections read as slices; the same one where there is none. Cost: linear in the nodes.

    Rewritten are projections (linear, convolution, matrix product) whose view has a dimension that is only ever selected
    from by number, with something inside each part: splitting bare indices would free nothing.
    """
    found = {fused.view: fused for node in program.nodes() for fused in _fused(node)}
    return replace(program, graph=_Rewriter(program, found).module()) if found else program


def _fused(node: fx.Node) -> Iterator[_Fused]:
    """The first dimension of a view that its users take apart, if any."""
    if operator_of(node) not in _VIEWS or not isinstance(node.args[0], fx.Node) or operator_of(node.args[0]) not in _MAKERS:
        return
    if not isinstance(node.args[1] if len(node.args) > 1 else None, (list, tuple, int)):
        return
    shape = shape_of(node)
    for source, first, last in _blocks(shape_of(node.args[0]), shape):
        for dim in range(first, last + 1):
            inner = math.prod(shape[dim + 1 : last + 1])
            if shape[dim] > 1 and inner > 1 and _taken_apart(node, dim):
                yield _Fused(node, dim, source, first, last, shape[dim], inner)
                return


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """(dimension, first, last) where one dimension became several."""
    i = j = 0
    while i < len(before) and j < len(after):
        start, total, wanted, single = j, after[j], before[i], True
        while total != wanted:
            if total < wanted:
                j += 1
                total *= after[j]
            else:
                i, single = i + 1, False
                wanted *= before[i]
        if single and j > start:
            yield i, start, j
        i, j = i + 1, j + 1


def _taken_apart(node: fx.Node, dim: int) -> bool:
    """Whether every use of the value ends in a choice of one index of the dimension."""
    for user in node.users:
        if user.args[0] is not node or node in user.args[1:]:
            return False
        if not _chooses(user, dim):
            moved = _moved(user, dim)
            if moved is None or not _taken_apart(user, moved):
                return False
    return bool(node.users)


def _chooses(node: fx.Node, dim: int) -> bool:
    if operator_of(node) not in {"aten.select", "aten.unbind"}:
        return False
    chosen = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return cast("int", chosen) % len(shape_of(cast("fx.Node", node.args[0]))) == dim


def _moved(node: fx.Node, dim: int) -> int | None:
    """Where a dimension goes in an operator that only moves or adds dimensions; None for any other operator."""
    name = operator_of(node)
    if name in _ORDERS:
        return _order(node).index(dim)
    if name in _COPIES or _takes_all(node):
        return dim
    if name == "aten.unsqueeze":
        return dim + (_axis(node) <= dim)
    if name == "aten.squeeze" and len(node.args) > 1 and isinstance(node.args[1], int):
        source = shape_of(cast("fx.Node", node.args[0]))
        axis = node.args[1] % len(source)
        return None if source[axis] != 1 else dim - (axis < dim)
    return _unmixed(node, dim) if name in _VIEWS else None


def _unmixed(node: fx.Node, dim: int) -> int | None:
    """Where a dimension goes in a reshape that merges or divides only what lies on either side of it."""
    before, after = shape_of(cast("fx.Node", node.args[0])), shape_of(node)
    places = (i for i, size in enumerate(after) if size == before[dim] and math.prod(after[:i]) == math.prod(before[:dim]))
    return next(places, None)


def _takes_all(node: fx.Node) -> bool:
    """A slice without effect, as indexing with a colon leaves behind."""
    return operator_of(node) == "aten.slice" and shape_of(node) == shape_of(cast("fx.Node", node.args[0]))


def _axis(node: fx.Node) -> int:
    """The result's dimension that an unsqueeze adds, or the argument's that a squeeze removes."""
    rank = len(shape_of(node if operator_of(node) == "aten.unsqueeze" else cast("fx.Node", node.args[0])))
    return cast("int", node.args[1]) % rank


def _order(node: fx.Node) -> list[int]:
    """For each dimension of the result the argument's dimension, read off the strides of a meta tensor."""
    rank = len(shape_of(node))
    tags = torch.empty_strided([2] * rank, list(range(rank)), device="meta")
    return list(cast("Any", node.target)(tags, *node.args[1:], **node.kwargs).stride())


class _Rewriter:
    """A copy of the graph in which each fused value is a list of its parts, and choosing one of them is free."""

    def __init__(self, program: Program, fused: dict[fx.Node, _Fused]) -> None:
        self.program, self.fused = program, fused
        self.new = fx.Graph()
        self.mapping: dict[fx.Node, fx.Node] = {}
        self.parts: dict[fx.Node, tuple[int, list[Part]]] = {}  # of values whose dimension is dissolved: which one
        self.chosen: dict[fx.Node, list[Part]] = {}  # results of unbind

    def module(self) -> fx.GraphModule:
        for node in self.program.nodes():
            self._emit(node)
        self.new.set_codegen(self.program.graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
        self.new.eliminate_dead_code(is_impure_node=lambda n: not n.name.startswith(_PREFIX))
        module = DeferredGraphModule(self.program.graph, self.new, "Captured")
        module.meta.update(self.program.graph.meta)
        return module

    def _emit(self, node: fx.Node) -> None:
        source = node.args[0] if node.args else None
        if node in self.fused:
            self.parts[node] = (self.fused[node].dim, self._slices(self.fused[node]))
        elif isinstance(source, fx.Node) and source in self.chosen:
            self.mapping[node] = self.chosen[source][cast("int", node.args[1])]
        elif isinstance(source, fx.Node) and source in self.parts:
            self._follow(node, *self.parts[source])
        else:
            self.mapping[node] = self.new.node_copy(node, lambda n: self.mapping[n])

    def _follow(self, node: fx.Node, dim: int, parts: list[Part]) -> None:
        """A use of a fused value: the choice of a part, or the same movement of each part."""
        if _chooses(node, dim):
            if operator_of(node) == "aten.unbind":
                self.chosen[node] = parts
            else:
                self.mapping[node] = parts[cast("int", node.args[2])]
            return
        moved = _moved(node, dim)
        assert moved is not None
        self.parts[node] = (moved, [self._move(node, part, dim, moved) for part in parts])

    def _move(self, node: fx.Node, part: Part, dim: int, moved: int) -> Part:
        name = operator_of(node)
        if _takes_all(node):
            return part
        if name in _ORDERS:
            order = [d - (d > dim) for d in _order(node) if d != dim]
            return self._call(node, aten.permute.default, part, order)
        if name in _COPIES:
            return self._call(node, node.target, part, *node.args[1:], **node.kwargs)
        if name in _VIEWS:
            return self._call(node, aten.reshape.default, part, [size for d, size in enumerate(shape_of(node)) if d != moved])
        axis = _axis(node)
        return self._call(node, node.target, part, axis - (axis > (moved if name == "aten.unsqueeze" else dim)))

    def _slices(self, fused: _Fused) -> list[Part]:
        view, shape = fused.view, shape_of(fused.view)
        whole, dim = self.mapping[cast("fx.Node", view.args[0])], fused.source
        outer = shape[fused.first : fused.dim]
        if math.prod(outer) > 1:
            before = shape_of(cast("fx.Node", view.args[0]))
            grouped = [*before[:dim], *outer, fused.count * fused.inner, *before[dim + 1 :]]
            whole, dim = self._call(view, aten.reshape.default, whole, grouped), dim + len(outer)
        parts: list[Part] = []
        for start in range(0, fused.count * fused.inner, fused.inner):
            part = self._call(view, aten.slice.Tensor, whole, dim, start, start + fused.inner)
            parts.append(self._call(view, aten.reshape.default, part, [*shape[: fused.dim], *shape[fused.dim + 1 :]]))
        return parts

    def _call(self, origin: fx.Node, target: Any, value: fx.Node, *args: Any, **kwargs: Any) -> fx.Node:
        made = self.new.create_node("call_function", target, (value, *args), kwargs, name=f"{_PREFIX}{origin.name}")
        made.meta.update(origin.meta)
        fake: Any = value.meta["val"]
        with fake.fake_mode, torch.no_grad():
            made.meta["val"] = target(fake, *args, **kwargs)
        return made


_PREFIX = "part_of_"
