"""The oracle at the border of an axis: what a cut has to prove, without running what the cut cannot reach.

A cut changes the values that have one of its axes among their dimensions, and what is computed between such values. All
others are computed by the same operators, from the same shapes, in the cut and in the masked network. So the two agree
everywhere if they agree on the values that leave this region: they alone are compared, in a program of this region, whose inputs
are the dense values around it, computed once for all plans. Agreement here implies agreement of the outputs; a difference here may
still vanish further on.

A write in place is done on a copy where nobody reads the old value, or a view of it, afterwards: that is the same program without the
write. Other writes stay; a plan whose region meets their memory is compared whole, because there a value depends on when it is read.
"""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx
from torch.utils import _pytree as pytree

from billhook.ir.deferred import DeferredGraphModule
from billhook.ir.plan import Plan
from billhook.ir.program import Edit, Program, state_of, tensor_args, writes_in_place
from billhook.ir.tensors import tensors_in

from .cut import cut_nodes, touches
from .mask import mask_nodes
from .module import Materialised
from .oracle import relative_error


@dataclass(frozen=True, slots=True)
class Comparison:
    """error: how far the cut is from the mask; moved: how far the mask is from the dense network. Both are the largest
    difference of a value that leaves the region, relative to that value's largest masked magnitude.
    """

    error: float
    moved: float


class LocalOracle:
    """Compares cut and masked networks of one program on one example, in the example's own precision.

    It keeps the dense value of every node, so it needs the memory of all activations.
    """

    def __init__(self, program: Program, example: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None) -> None:
        self.program = program
        self.order = list(program.nodes())
        self.inputs = _inputs(program, *(example or program.example))
        self.outputs = tensor_args(self.order[-1])
        self.live = _ancestors(self.outputs, {})
        self.shared: dict[fx.Node, int] = {}
        if any(map(writes_in_place, self.order)):
            self.shared = _shared(self.order, self._run(program.state(), self.order, {}, frozenset(self.order)))
        self.dense = self._run(program.state(), self.order, {}, self.shared)

    def compare(self, plan: Plan) -> Comparison:
        """Cut against mask, and mask against the dense network, where the plan's axes end."""
        part = self._part(plan)
        if self._meets_writes(part):
            part = _Part(self.program, {node: node for node in self.order}, self.outputs, {})
        small, large = cut_nodes(part.program, plan), mask_nodes(part.program, plan)
        cut, masked = (self._values(made, part) for made in (small, large))
        dense = [self.dense[node] for node in part.wanted]
        return Comparison(_worst(cut, masked), _worst(masked, dense))

    def _part(self, plan: Plan) -> "_Part":
        """The program of what the plan's axes reach, as far as the network's outputs depend on it."""
        region = _region(self.order, self.program, set(plan.kept))
        between = _between(self.order, region)
        border = [n for n in _border(self.order, region, between) if n in self.live and n.meta.get("val") is not None]
        computed = {node for node in _ancestors(border, {}) if node in between or node in border}
        return _part_of(self.program, self.order, computed, border, self.dense)

    def _meets_writes(self, part: "_Part") -> bool:
        """Whether the part computes in memory that is written into, or reads from it before the last write into it."""
        return any(
            node in self.shared or any(i < self.shared.get(arg, 0) for arg in tensor_args(node))
            for i, node in enumerate(self.order)
            if node in part.inner and part.inner[node].op != "placeholder"
        )

    def _values(self, made: Materialised, part: "_Part") -> list[Any]:
        """The values that stand for the wanted nodes."""
        given = {made.mapping[inner]: value for inner, value in part.given.items() if inner in made.mapping}
        shared = {made.mapping[node] for node in self.shared if node in made.mapping and node in part.inner}
        values = self._run(made.state, made.graph.nodes, given, shared)
        return [values[made.mapping[part.inner[node]]] for node in part.wanted]

    def _run(
        self, state: Mapping[str, torch.Tensor], order: Iterable[fx.Node], given: Mapping[fx.Node, Any], shared: Collection[fx.Node]
    ) -> dict[fx.Node, Any]:
        """The values of nodes in order; inputs are found by name. shared: nodes that are written in place, or on copies of inputs."""
        values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in order:
                if node in given:
                    values[node] = given[node]
                elif node.op == "placeholder":
                    values[node] = copy.deepcopy(self.inputs[node.name]) if node in shared else self.inputs[node.name]
                elif node.op == "get_attr":
                    values[node] = state[str(node.target)].clone() if node in shared else state[str(node.target)]
                elif node.op == "call_function":
                    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
                    if node not in shared and writes_in_place(node):
                        args = (cast(torch.Tensor, args[0]).clone(), *args[1:])
                    target: Any = node.target
                    values[node] = target(*args, **kwargs)
        return values


@dataclass(frozen=True, slots=True)
class _Part:
    """inner: the part's node for each of the program's; wanted: nodes of the program that are compared; given: values of inner inputs."""

    program: Program
    inner: Mapping[fx.Node, fx.Node]
    wanted: list[fx.Node]
    given: Mapping[fx.Node, Any]


def _part_of(program: Program, order: list[fx.Node], computed: set[fx.Node], wanted: list[fx.Node], dense: Mapping[fx.Node, Any]) -> _Part:
    """A program that computes these nodes; what else they read, and the inputs, are its inputs. Names stay, and so do types."""
    read = {arg for node in computed for arg in tensor_args(node)}
    graph, inner, given = fx.Graph(), dict[fx.Node, fx.Node](), dict[fx.Node, Any]()
    for node in order:
        if node in computed and node.op != "placeholder":
            inner[node] = graph.node_copy(node, lambda n: inner[n])
        elif node in read or node in computed or node.op == "placeholder":
            inner[node] = graph.create_node("placeholder", node.name, name=node.name)
            inner[node].meta = dict(node.meta)
            given[inner[node]] = dense[node]
    graph.output(tuple(inner[node] for node in wanted))
    state = {str(n.target): state_of(program.graph, str(n.target)) for n in computed if n.op == "get_attr"}
    edits = {n.name: _moved(program.edits[n.name], inner) for n in computed if n.name in program.edits}
    return _Part(replace(program, graph=DeferredGraphModule(state, graph), edits=edits), inner, wanted, given)


def _moved(edit: Edit, inner: Mapping[fx.Node, fx.Node]) -> Edit:
    """The same edit of a node of the part."""
    args, kwargs = (fx.map_arg(found, lambda n: inner[n]) for found in (edit.args, dict(edit.kwargs)))
    return replace(edit, args=tuple(cast("tuple[Any, ...]", args)), kwargs=tuple(cast("dict[str, Any]", kwargs).items()))


def _shared(order: list[fx.Node], values: Mapping[fx.Node, Any]) -> dict[fx.Node, int]:
    """The nodes in memory that is written into and read afterwards through another node than the write; the place of its last write.

    values: of one run, all alive, so that each piece of memory has one address. State and inputs count as read: they outlive the run.
    """
    memory = {node: {t.untyped_storage().data_ptr() for t in tensors_in([value])} for node, value in values.items()}
    stale, found, last = set[fx.Node](), set[int](), dict[int, int]()
    for i, node in enumerate(order):
        found.update(*(memory[arg] for arg in tensor_args(node) if arg in stale))
        if writes_in_place(node):
            written = memory[tensor_args(node)[0]]
            last.update(dict.fromkeys(written, i))
            aliases = [n for n in order[:i] if not written.isdisjoint(memory.get(n, ()))]
            if any(n.op != "call_function" for n in aliases):
                found.update(written)
            stale.update(aliases)
    return {n: max(last[m] for m in memory[n] & found) for n in order if memory.get(n, set()) & found}


def _inputs(program: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The example by the names of the graph's inputs."""
    leaves = pytree.tree_leaves((args, dict(kwargs)))
    names = [n.name for n in program.nodes() if n.op == "placeholder"]
    if len(names) != len(leaves):
        leaves = tensors_in(leaves)  # a concrete trace has inputs for tensors alone
    return dict(zip(names, leaves, strict=True))


def _region(order: Iterable[fx.Node], program: Program, names: set[str]) -> set[fx.Node]:
    """Nodes whose value has one of the axes; a tuple of values belongs where an argument does."""
    region: set[fx.Node] = set()
    for node in order:
        dims = program.types.get(node.name)
        if dims is None:
            if any(arg in region for arg in tensor_args(node)):
                region.add(node)
        elif any(touches(dim, names) for dim in dims):
            region.add(node)
    return region


def _between(order: list[fx.Node], region: set[fx.Node]) -> set[fx.Node]:
    """The region, and every node on a path that leaves it and comes back."""
    below, above = set(region), set(region)
    for node in order:
        if node not in below and any(arg in below for arg in tensor_args(node)):
            below.add(node)
    for node in reversed(order):
        if node not in above and any(user in above for user in node.users):
            above.add(node)
    return below & above


def _border(order: Iterable[fx.Node], region: set[fx.Node], between: set[fx.Node]) -> list[fx.Node]:
    """The values without cut axes by which the outside sees what happened inside."""

    def leaves(node: fx.Node) -> bool:
        if node in between:
            return node not in region and any(user not in between for user in node.users)
        return node.op != "output" and any(arg in region for arg in tensor_args(node))

    return [node for node in order if leaves(node)]


def _ancestors(wanted: Iterable[fx.Node], given: Mapping[fx.Node, Any]) -> set[fx.Node]:
    stack, found = list(wanted), set[fx.Node]()
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node not in given:
                stack.extend(node.all_input_nodes)
    return found


def _worst(left: list[Any], right: list[Any]) -> float:
    pairs = zip(map(tensors_in, left), map(tensors_in, right), strict=True)
    return max((relative_error(a, b) for a, b in pairs), default=0.0)
