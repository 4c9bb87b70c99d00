"""Grouping: which calls make a kernel together. An anchor and what can be fused behind it; moves join generated kernels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from torch import fx

from billhook.ir.program import operator_of, tensor_args
from billhook.ir.target import Target

from .operators import dims_of, fits_behind, is_move, is_pointwise, is_reshape, permutation
from .partition_layout import blocked_values, is_channel_cat, is_conv, is_group_norm, is_map, is_pool

TO_LAST = (0, 2, 3, 1)  # [N, C, H, W] to [N, H, W, C]
TO_FIRST = (0, 3, 1, 2)

Kind: TypeAlias = Literal["conv", "norm", "pool", "cat", "linear", "pointwise", "generic"]


@dataclass(slots=True, eq=False)
class Group:
    """Calls of one kernel in execution order; the last one makes its output. blocked: the output's layout.

    Kernels of kind "generic" have no template: they are row-major and may begin with any moves of their inputs.
    """

    kind: Kind
    nodes: list[fx.Node]
    blocked: bool = False

    @property
    def tail(self) -> fx.Node:
        return self.nodes[-1]


class Grouping:
    """The groups of a graph in normal form, and the questions that writing the kernels down asks about them.

    Moves that no group has taken are `loose`: each generated kernel that reads one does it itself while reading.
    """

    def __init__(self, graph: fx.Graph, target: Target) -> None:
        self.blocked = blocked_values(graph) if target.blocked else frozenset[fx.Node]()
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.of_tail: dict[fx.Node, Group] = {}
        for node in graph.nodes:
            if node.op == "call_function":
                self._place(node)
        for group in list(self.groups()):
            self._store_reads(group)
        for value in tensor_args(next(iter(reversed(graph.nodes)))):
            self._materialise(value)

    def groups(self) -> Iterator[Group]:
        """The groups in an order in which each one's inputs are ready."""
        return iter(sorted(self.of_tail.values(), key=lambda g: self.order[g.tail]))

    def is_loose(self, node: fx.Node) -> bool:
        return is_move(node) and node not in self.of_tail

    def crosses_out(self, node: fx.Node) -> bool:
        """Whether a loose move reads a blocked map and makes of it what one layout kernel can write: [N, H, W, C] or [N, C*H*W]."""
        source = cast("fx.Node", node.args[0])
        if not self.is_loose(node) or source not in self.blocked:
            return False
        batch, *rest = dims_of(source)
        flat = is_reshape(node) and dims_of(node) == (batch, rest[0] * rest[1] * rest[2])
        return flat or permutation(node) == TO_LAST

    def crosses_in(self, node: fx.Node) -> bool:
        """Whether a loose move makes [N, C, H, W] of a stored [N, H, W, C], which one layout kernel can block."""
        if not self.is_loose(node) or permutation(node) != TO_FIRST or not is_map(node):
            return False
        source = cast("fx.Node", node.args[0])
        return source in self.of_tail or source.op == "placeholder"

    def reads_blocked(self, node: fx.Node) -> bool:
        """Whether a call's kernel wants blocked maps."""
        return node in self.blocked or (is_pool(node) and node.args[0] in self.blocked)

    def _place(self, node: fx.Node) -> None:
        if is_move(node):
            self._place_move(node)
        elif is_pointwise(node):
            self._place_pointwise(node)
        else:
            self._place_anchor(node)

    def _single(self, node: fx.Node) -> Group | None:
        """The group whose output `node` is, if nothing else than one call reads it."""
        return self.of_tail.get(node) if len(node.users) == 1 else None

    def _extend(self, group: Group, node: fx.Node) -> None:
        del self.of_tail[group.tail]
        group.nodes.append(node)
        self.of_tail[node] = group

    def _place_move(self, node: fx.Node) -> None:
        """Behind a generated kernel or a pooled vector if that is all that reads it; otherwise the move stays loose."""
        source = cast("fx.Node", node.args[0])
        group = self._single(source)
        if group is None:
            return
        if group.kind == "generic":
            wanted_blocked = permutation(node) == TO_FIRST and is_map(node) and all(self.reads_blocked(r) for r in node.users)
            if not wanted_blocked:
                self._extend(group, node)
        elif group.kind == "pool" and len(group.nodes) == 1 and is_reshape(node) and group.blocked and dims_of(node) == dims_of(source)[:2]:
            self._extend(group, node)
            group.blocked = False

    def _place_pointwise(self, node: fx.Node) -> None:
        """Into the epilogue of an operand's kernel, a template's if possible, else the latest one's; otherwise on its own."""
        blocked = node in self.blocked
        fits = fits_behind(node, blocked)
        found = [(a, self._single(a)) for a in tensor_args(node)]
        hosts = [g for a, g in found if g is not None and g.blocked == blocked and dims_of(a) == dims_of(node) and _hosts(g, fits)]
        if hosts:
            host = max(hosts, key=lambda g: (g.kind != "generic", self.order[g.tail]))
            self._extend(host, node)
        else:
            own: Kind = (
                "pointwise" if fits and any(dims_of(a) == dims_of(node) and a.op != "get_attr" for a in tensor_args(node)) else "generic"
            )
            self._start(own, node)

    def _place_anchor(self, node: fx.Node) -> None:
        if is_conv(node):
            self._start("conv", node)
        elif node in self.blocked and is_group_norm(node):
            self._start("norm", node)
        elif self.reads_blocked(node) and is_pool(node):
            self._start("pool", node)
        elif is_channel_cat(node):
            self._start("cat", node)
        elif _is_linear(node):
            self._start("linear", node)
        else:
            self._start("generic", node)

    def _start(self, kind: Kind, node: fx.Node) -> None:
        taken = self._prologue(node) if kind == "generic" else []
        self.of_tail[node] = Group(kind, [*taken, node], node in self.blocked)

    def _prologue(self, node: fx.Node) -> list[fx.Node]:
        """Take over pointwise kernels that only this generated kernel reads."""
        taken: list[fx.Node] = []
        for value in dict.fromkeys(tensor_args(node)):
            source, chain = value, [value]
            while self.is_loose(source) and len(source.users) == 1:
                source = cast("fx.Node", source.args[0])
                chain.append(source)
            group = self._single(source)
            if group is not None and not group.blocked and all(is_pointwise(n) for n in group.nodes):
                del self.of_tail[source]
                taken += group.nodes
        return sorted(taken, key=self.order.__getitem__)

    def _store_reads(self, group: Group) -> None:
        """Templates read stored values: a chain that reads loose moves is generated instead, for others the moves become kernels."""
        loose = [
            value
            for node in group.nodes
            for value in tensor_args(node)
            if self.is_loose(value) and not self.crosses_out(value) and not (self.crosses_in(value) and self.reads_blocked(node))
        ]
        if group.kind == "pointwise" and not group.blocked and loose:
            group.kind = "generic"
        elif group.kind != "generic":
            for value in loose:
                self._materialise(value)

    def _materialise(self, node: fx.Node) -> None:
        """Make a kernel of a loose move that has to be stored, together with the loose moves before it."""
        if not self.is_loose(node) or self.crosses_out(node):
            return
        chain = [node]
        while self.is_loose(source := cast("fx.Node", chain[0].args[0])) and not self.crosses_out(source):
            chain.insert(0, source)
        self.of_tail[node] = Group("generic", chain)


def _hosts(group: Group, fits: bool) -> bool:
    """Whether a kernel of this kind can have another pointwise call behind it."""
    if group.kind in {"conv", "norm", "linear", "pointwise"} or (group.kind == "pool" and group.blocked):
        return fits
    return group.kind == "generic"


def _is_linear(node: fx.Node) -> bool:
    """Whether a template makes this linear map: constant weight and bias."""
    if operator_of(node) != "aten.linear":
        return False
    arguments = [a for a in node.args[1:] if a is not None]
    return all(isinstance(a, fx.Node) and a.op == "get_attr" for a in arguments) and len(dims_of(cast("fx.Node", node.args[1]))) == 2
