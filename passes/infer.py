"""Axis inference: dependency groups as type inference over the dimensions of every value in the graph.

One walk over the graph in execution order. Every operator states equations between dimensions through its rule; solving
them merges, refines or freezes axes. What is unknown is frozen with the node and the reason: never guessed.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from billhook.ir.axis import Axis, Member, Reason
from billhook.ir.dims import BATCH, Concat, Dim, Leaf, Product, leaves, occurrences
from billhook.ir.program import Edit, Program, Read, SizeOf, state_of
from billhook.passes.rules import Context, find_rule
from billhook.passes.rules.context import PendingEdit, PendingRead, Result, TermSize
from billhook.passes.rules.contraction import unsolved
from billhook.passes.rules.numbers import follow_numbers, share_floor
from billhook.passes.unify import Atom, Cat, Prod, Term, atoms, freeze, resolve

from .divide_by_nothing import keep_divisors
from .vanish import freeze_vanished
from .weightless import freeze_weightless


def infer_axes(program: Program) -> Program:
    """The program with the type of every dimension, and its axes. Cost: near-linear in nodes and concatenated segments."""
    ctx = Context()
    state: dict[str, tuple[Term, ...]] = {}
    by_tensor: dict[int, tuple[Term, ...]] = {}
    batch = _batch_atom(program)
    for node in program.nodes():
        ctx.terms[node] = _node_terms(ctx, program, node, state, by_tensor, batch)
    freeze_vanished(ctx)
    keep_divisors(ctx)
    freeze_weightless(program, state)
    return _Finish(program, ctx, state, batch).program()


def _node_terms(
    ctx: Context,
    program: Program,
    node: fx.Node,
    state: dict[str, tuple[Term, ...]],
    by_tensor: dict[int, tuple[Term, ...]],
    batch: Atom | None,
) -> Result:
    if node.op == "get_attr":
        tensor = state_of(program.graph, str(node.target))
        terms = by_tensor.setdefault(id(tensor), ctx.fresh(tensor.shape))  # tied weights share their axes
        state[str(node.target)] = terms
        return terms
    if node.op == "placeholder":
        return _input_terms(ctx, node, batch)
    if node.op == "output":
        _freeze_outputs(ctx, node)
        return ()
    known = find_rule(node.target)
    result = unsolved(ctx, node, "no rule for this operator") if known is None else known(ctx, node)
    follow_numbers(ctx, node)
    return result


def _batch_atom(program: Program) -> Atom | None:
    """One term for the leading dimension that all inputs share."""
    sizes = {tuple(n.meta["val"].shape)[:1] for n in program.nodes() if n.op == "placeholder" and getattr(n.meta.get("val"), "ndim", 0)}
    lead = sizes.pop() if len(sizes) == 1 else (1,)
    return Atom(int(lead[0])) if lead[0] > 1 else None


def _input_terms(ctx: Context, node: fx.Node, batch: Atom | None) -> Result:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return ()
    terms: list[Term] = list(ctx.fresh(value.shape))
    if batch is not None and terms:
        terms[0] = batch
    ctx.freeze(node, "an input of the program", *terms)
    return tuple(terms)


def _freeze_outputs(ctx: Context, node: fx.Node) -> None:
    def visit(value: fx.Node) -> fx.Node:
        terms = ctx.terms.get(value, ())
        for dims in terms if isinstance(terms, list) else [terms]:
            for term in dims:
                freeze(term, Reason(value.name, str(value.target), "an output of the program"))
        named = ctx.pointed(value)
        if named is not None:
            freeze(named, Reason(value.name, str(value.target), "an output of the program names its indices by number"))
        return value

    fx.map_arg(node.args, visit)


class _Finish:
    """Solved terms turned into named, frozen values."""

    def __init__(self, program: Program, ctx: Context, state: dict[str, tuple[Term, ...]], batch: Atom | None) -> None:
        self.base, self.ctx, self.state = program, ctx, state
        self.names: dict[int, str] = {}
        self.roots: dict[int, Atom] = {}
        self.aliases: dict[str, list[str]] = {}
        self.cache: dict[int, Dim] = {}
        self.pinned: list[Term] = []  # keeps ids in the cache alive
        self.least: dict[int, int] = {}
        for term, count in ctx.floors:
            share_floor(term, count, self.least)
        if batch is not None:
            root = resolve(batch)
            if isinstance(root, Atom):
                self.names[id(root)] = BATCH
                self.roots[id(root)] = root

    def program(self) -> Program:
        self._name_axes()
        types = {node.name: tuple(self.dim(t) for t in terms) for node, terms in self.ctx.terms.items() if isinstance(terms, tuple)}
        edits = {name: self._edit(pending) for name, pending in self.ctx.edits.items() if self._applies(pending)}
        return replace(self.base, types=types, axes=self._axes(), edits=edits, reads=tuple(map(self._read, self.ctx.reads)))

    def _name_axes(self) -> None:
        """An axis is called after the first tensor that makes it, else after the first that has it; other names are aliases."""
        labels: dict[int, list[tuple[bool, str]]] = {}
        for tensor, terms in self.state.items():
            for dim, term in enumerate(terms):
                reads = self.ctx.roles.get((tensor, dim)) == "consumer"
                found = list(dict.fromkeys(a for a in atoms(term) if a.size > 1 and "extent" not in a.marks))
                for k, atom in enumerate(found):
                    self.roots[id(atom)] = atom
                    label = self._label(tensor, dim) if len(found) == 1 else f"{self._label(tensor, dim)}.{k}"
                    labels.setdefault(id(atom), []).append((reads, label))
        taken: set[str] = {BATCH}
        for key, found_labels in labels.items():
            ordered = [label for _, label in sorted(found_labels, key=lambda pair: pair[0])]
            name = self.names.get(key, ordered[0])
            while key not in self.names and name in taken:
                name += "'"
            taken.add(name)
            self.names[key] = name
            self.aliases[name] = ordered

    def _label(self, tensor: str, dim: int) -> str:
        """`layer1.0.conv1.out` for what a weight makes, `.in` for what it reads, the tensor's own name otherwise."""
        module, _, leaf = tensor.rpartition(".")
        role = self.ctx.roles.get((tensor, dim))
        side = {"producer": "out", "consumer": "in", "scale": "out"}.get(role or "", f"dim{dim}")
        if leaf in {"weight", "bias", "running_mean", "running_var"} and module:
            return f"{module}.{side}"
        return f"{tensor}.{side if role in {'producer', 'consumer'} else f'dim{dim}'}"

    def dim(self, term: Term) -> Dim:
        here = resolve(term)
        known = self.cache.get(id(here))
        if known is not None:
            return known
        if isinstance(here, Atom):
            made: Dim = Leaf(self.names.get(id(here)), here.size)
        elif isinstance(here, Cat):
            parts = [d for p in here.parts for d in _segments(self.dim(p))]
            made = Concat(tuple(parts), here.size)
        else:
            assert isinstance(here, Prod)
            parts = [d for p in here.parts for d in _factors(self.dim(p))]
            made = Product(tuple(parts), here.size)
        self.cache[id(here)] = made
        self.pinned.append(here)
        return made

    def _applies(self, pending: PendingEdit) -> bool:
        if pending.when is None:
            return True
        return any(leaf.name not in (None, BATCH) for term in pending.when for leaf in leaves(self.dim(term)))

    def _read(self, pending: PendingRead) -> Read:
        return pending.read if pending.part is None else replace(pending.read, part=self.dim(pending.part))

    def _edit(self, pending: PendingEdit) -> Edit:
        edit = pending.edit
        return replace(edit, args=tuple(self._sizes(a) for a in edit.args), kwargs=tuple((k, self._sizes(v)) for k, v in edit.kwargs))

    def _sizes(self, value: Any) -> Any:
        if isinstance(value, TermSize):
            return SizeOf(self.dim(value.term))
        if isinstance(value, (list, tuple)):
            return [self._sizes(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        return value

    def _axes(self) -> tuple[Axis, ...]:
        members: dict[str, list[Member]] = {name: [] for name in self.names.values()}
        for tensor, terms in self.state.items():
            for dim, term in enumerate(terms):
                role = self.ctx.roles.get((tensor, dim), "scale")
                for place in occurrences(self.dim(term)):
                    members[place.axis].append(Member(tensor, dim, role, place))
        axes = (self._axis(name, self.roots[key], members[name]) for key, name in self.names.items() if members[name])
        return tuple(axis for axis in axes if axis.name != BATCH)

    def _axis(self, name: str, atom: Atom, members: Iterable[Member]) -> Axis:
        aliases = tuple(dict.fromkeys(a for a in self.aliases.get(name, ()) if a != name))
        return Axis(
            name=name,
            size=atom.size,
            members=tuple(members),
            frozen_because=tuple(atom.frozen),
            mixing="mixing" in atom.marks,
            additive="nonempty" not in atom.marks,
            least=self.least.get(id(atom), 1),
            aliases=aliases,
        )


def _segments(dim: Dim) -> tuple[Dim, ...]:
    return dim.segments if isinstance(dim, Concat) else (dim,)


def _factors(dim: Dim) -> tuple[Dim, ...]:
    return dim.factors if isinstance(dim, Product) else (dim,)
