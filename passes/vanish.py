"""A safety net under all rules: an axis may leave the graph only where a rule says how.

Where an axis of an argument is missing in a result, the rule must have declared a sum, a statistic, or that the indices are
left out unread. Any other operator computes something from the axis that no mask is known for, so the axis is frozen.
"""

import operator

from torch import fx

from billhook.ir.program import tensor_args
from billhook.passes.rules import Context
from billhook.passes.rules.context import Terms
from billhook.passes.unify import Term, atoms, freeze


def freeze_vanished(ctx: Context) -> None:
    """Freeze the axes that vanish without a declaration. Cost: one visit of every dimension's leaves."""
    declared = _declared(ctx)
    present = {node: {id(atom): atom for term in _terms(ctx, node) for atom in atoms(term)} for node in ctx.terms}
    for node, made in present.items():
        if node.op == "call_function" and ctx.terms[node] and node.target is not operator.getitem:
            gone = {key: atom for arg in tensor_args(node) for key, atom in present.get(arg, {}).items() if key not in made}
            for key, atom in gone.items():
                if not atom.frozen and key not in declared.get(node.name, ()):
                    freeze(atom, ctx.reason(node, "the rule of this operator does not say what becomes of the axis"))
                    atom.marks.add("nonempty")


def _declared(ctx: Context) -> dict[str, set[int]]:
    """Atoms that are read or dropped, by node."""
    nodes = {node.name: node for node in ctx.terms}
    found: dict[str, set[int]] = {name: _ids(terms) for name, terms in ctx.dropped.items()}
    for read in (pending.read for pending in ctx.reads):
        value = tensor_args(nodes[read.node])[read.position]
        found.setdefault(read.node, set()).update(_ids([ctx.dims(value)[read.dim]]))
    return found


def _ids(terms: list[Term]) -> set[int]:
    return {id(atom) for term in terms for atom in atoms(term)}


def _terms(ctx: Context, node: fx.Node) -> list[Term]:
    """All dimensions of a value, or of each value of a tuple."""
    terms = ctx.terms.get(node, ())
    several: list[Terms] = terms if isinstance(terms, list) else [terms]
    return [term for dims in several for term in dims]
