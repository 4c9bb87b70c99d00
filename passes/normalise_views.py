"""Writes into a part of a tensor become values of the whole: what reads the tensor, or other views of it, afterwards sees them.

Every view of the written memory is a chain of slices, selections, permutations and reshapes from the tensor that owns it. A write gives
the view a new value; back along the chain that is put in its place in the value before, and views are taken anew where they are read.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.operators import dims_of
from billhook.costmodel.origin import ArgumentOf, CallOrigin, Extent, Extents, Path, dims_meta, origin_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import operator_of

from .normalise_draft import Draft
from .normalise_inplace import functional, is_write, memory, viewed, written
from .normalise_operators import RESHAPES, bounds_of, order_of, reshaped
from .normalise_tuples import argument

aten: Any = torch.ops.aten

_SAME = {"aten.alias", "aten.detach", "aten.contiguous"}


def write_through_views(draft: Draft) -> None:
    """Make values of all writes into memory that no state owns. CaptureError for views that cannot be followed backwards."""
    owner = memory(draft)
    bases = dict.fromkeys(owner[w] for n in draft.calls() for w in written(n))
    for base in bases:
        if base.op != "get_attr":
            _Memory(draft, base, {n for n, b in owner.items() if b is base}).run()


class _Memory:
    """One tensor that is written into, and the views of it."""

    def __init__(self, draft: Draft, base: fx.Node, members: set[fx.Node]) -> None:
        self.draft, self.base, self.members = draft, base, members
        self.version = 0
        self.known: dict[fx.Node, tuple[int, fx.Node]] = {}  # for every view: the node that had its value, and when
        self.same: dict[fx.Node, fx.Node] = {}  # what a write returns is the view that it wrote into
        self.sources = {n: source for n in members if (source := viewed(n)) is not None}  # as they were: arguments change

    def run(self) -> None:
        for node in self.draft.nodes():
            node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda n, at=node: self._read(n, at))
            if node in self.members and is_write(node):
                self._write(node)
            elif node in self.members:
                self.known[node] = (self.version, node)

    def _read(self, value: fx.Node, before: fx.Node) -> fx.Node:
        """The node with a view's present value, made if the view was taken before the last write."""
        if value not in self.members or (is_write(before) and value in written(before)):
            return value
        return self._current(self.same.get(value, value), before)

    def _current(self, view: fx.Node, before: fx.Node) -> fx.Node:
        version, node = self.known[view]
        if version < self.version:
            source = self._current(self._source(view), before)
            args = (source, *view.args[1:])
            node = self.draft.call(
                before, view.target, args, name=view.name, dims=dims_meta(view.meta), origin=origin_meta(view.meta), kwargs=view.kwargs
            )
            self.known[view] = (self.version, node)
        return node

    def _source(self, view: fx.Node) -> fx.Node:
        source = self.sources[view]
        return self.same.get(source, source)

    def _write(self, node: fx.Node) -> None:
        """Make the write a value, and put it in its place in everything that the view is a part of."""
        target, *others = list(written(node))
        if others:
            raise CaptureError(f"node {node.name} ({node.target}) writes into several tensors; do it out of place")
        view = self.same[node] = self.same.get(target, target)
        chain = [view]
        while chain[-1] is not self.base:
            chain.append(self._source(chain[-1]))
        before = [self._current(v, node) for v in chain]
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), lambda n: before[0] if n is target else n)
        node.target = functional(node)
        self.version += 1
        value, after = node, node.next
        self.known[view] = (self.version, value)
        for part, whole, old in zip(chain, chain[1:], before[1:], strict=False):
            value = self._placed(part, old, value, after)
            self.known[whole] = (self.version, value)

    def _placed(self, view: fx.Node, old: fx.Node, value: fx.Node, before: fx.Node) -> fx.Node:
        """The value of what `view` is taken from, which was `old`, once the view has this value."""
        name, dims = operator_of(view), dims_meta(old.meta)
        if name in _SAME:
            return value
        if name in RESHAPES:
            return self._reshape(value, dims_of(old), dims, before)
        order = order_of(view)
        if order is not None:
            inverse = [order.index(d) for d in range(len(order))]
            return self.draft.call(before, aten.permute.default, (value, inverse), name=f"{view.name}_back", dims=dims)
        if name == "aten.select":
            dim = int(cast("int", view.args[1])) % len(dims)
            place = int(cast("int", view.args[2])) % dims_of(old)[dim]
            shape, extents = [*dims_of(value)[:dim], 1, *dims_of(value)[dim:]], dims_meta(view.meta)
            value = self._reshape(value, shape, (*extents[:dim], 1, *extents[dim:]), before)
            return self._scatter(view, old, value, (dim, place, place + 1, 1), None, before)
        if name in {"aten.slice", "aten.narrow"}:
            return self._scatter(view, old, value, *_slice(view, dims_of(old)), before)
        raise CaptureError(f"node {view.name} ({view.target}) is a view that is written into and has no inverse; copy it first")

    def _reshape(self, value: fx.Node, shape: Sequence[int], dims: Extents, before: fx.Node) -> fx.Node:
        return reshaped(self.draft, before, value, shape, dims, f"{value.name}_shaped")

    def _scatter(
        self, view: fx.Node, old: fx.Node, value: fx.Node, where: tuple[int, int, int, int], origin: CallOrigin | None, before: fx.Node
    ) -> fx.Node:
        args = (old, value, *where)
        return self.draft.call(before, aten.slice_scatter.default, args, name=f"{view.name}_put", dims=dims_meta(old.meta), origin=origin)


def _slice(view: fx.Node, shape: tuple[int, ...]) -> tuple[tuple[int, int, int, int], CallOrigin | None]:
    """Dimension, start, end and step of a slice, and where start and end come from, as literals of a slice_scatter."""
    dim = int(argument(view, 1, "dim", 0)) % len(shape)
    if operator_of(view) == "aten.narrow":
        start = int(argument(view, 2, "start", 0)) % max(shape[dim], 1)
        return (dim, start, start + dims_of(view)[dim], 1), None
    known = origin_meta(view.meta)
    literals: tuple[tuple[Path, Extent], ...] = tuple(((path[0] + 1, *path[1:]), extent) for path, extent in known.literals)
    if known.captured is not None:
        literals = (((3,), ArgumentOf(known.captured, 2)), ((4,), ArgumentOf(known.captured, 3)))
    return (dim, *bounds_of(view, shape[dim])), CallOrigin(None, literals)
