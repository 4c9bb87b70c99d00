"""Unification of dimension types: merge, split (refine) or refuse.

The terms are those of `ir.dims`, but their leaves are still unknowns (`Atom`). An equation between two terms merges
atoms, binds an atom to a product or a concatenation (refinement), or raises `Conflict`. Every refinement replaces an atom
by strictly smaller ones, so solving always ends; merging is union by size, so a chain of n equations costs about n.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias, final

from billhook.ir.axis import Reason

UNKNOWN = Reason("", "", "")
MAX_REASONS = 4  # per atom; a stem that everything freezes would otherwise collect thousands


class Conflict(Exception):
    """The equation has no solution as axes: the caller freezes both sides."""


@final
class Atom:
    """An unknown of fixed size: free, or bound to another term."""

    __slots__ = ("bound", "frozen", "marks", "rank", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.bound: Term | None = None
        self.rank = 0
        self.frozen: list[Reason] = []
        self.marks: set[str] = set()


@final
@dataclass(frozen=True, slots=True, eq=False)
class Prod:
    """Row-major product; the last factor varies fastest."""

    parts: "tuple[Term, ...]"
    size: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class Cat:
    """Concatenation."""

    parts: "tuple[Term, ...]"
    size: int


Term: TypeAlias = Atom | Prod | Cat


def resolve(term: Term) -> Term:
    """Follow bindings of the outermost atom, compressing the path."""
    if not isinstance(term, Atom) or term.bound is None:
        return term
    trail: list[Atom] = []
    here: Term = term
    while isinstance(here, Atom) and here.bound is not None:
        trail.append(here)
        here = here.bound
    for atom in trail:
        atom.bound = here
    return here


def cat(parts: list[Term]) -> Term:
    """Concatenation in normal form: flat, without empty segments."""
    flat: list[Term] = []
    for part in parts:
        term = resolve(part)
        if term.size == 0:
            continue
        flat.extend(term.parts if isinstance(term, Cat) else (term,))
    if len(flat) == 1:
        return flat[0]
    return Cat(tuple(flat), sum(t.size for t in flat)) if flat else Atom(0)


def prod(parts: list[Term]) -> Term:
    """Product in normal form: flat, without factors of size 1."""
    flat: list[Term] = []
    for part in parts:
        term = resolve(part)
        if term.size != 1:
            flat.extend(term.parts if isinstance(term, Prod) else (term,))
    if not flat:
        return resolve(parts[0]) if parts else Atom(1)
    if len(flat) == 1:
        return flat[0]
    size = 1
    for term in flat:
        size *= term.size
    return Prod(tuple(flat), size)


def freeze(term: Term, reason: Reason) -> None:
    """Freeze every axis of the term."""
    for atom in atoms(term):
        if len(atom.frozen) < MAX_REASONS and reason not in atom.frozen:
            atom.frozen.append(reason)


def mark(term: Term, label: str) -> None:
    """Attach a label to every axis of the term."""
    for atom in atoms(term):
        atom.marks.add(label)


def atoms(term: Term) -> list[Atom]:
    """The free atoms of a term, in order."""
    whole = resolve(term)
    if isinstance(whole, Atom):
        return [whole]  # most terms: this function is called for every dimension of every value
    found: list[Atom] = []
    stack: list[Term] = [whole]
    while stack:
        here = resolve(stack.pop())
        if isinstance(here, Atom):
            found.append(here)
        else:
            stack.extend(reversed(here.parts))
    return found


def unify(left: Term, right: Term, because: Reason = UNKNOWN) -> None:
    """Make the two terms equal. Raises Conflict where no refinement does it; what was merged until then stays merged.

    because: the reason to give for indices that have to be set apart (see `split`).
    """
    a, b = resolve(left), resolve(right)
    if a is b:
        return
    if a.size != b.size:
        raise Conflict(f"sizes {a.size} and {b.size} differ")
    if isinstance(a, Atom):
        _bind(a, b)
    elif isinstance(b, Atom):
        _bind(b, a)
    elif isinstance(a, Prod) and isinstance(b, Prod):
        _align_products(list(a.parts), list(b.parts), because)
    else:
        _align_segments([a], [b], because)


def split(term: Term, at: int, because: Reason = UNKNOWN) -> tuple[Term, Term]:
    """Cut a term in two at a position, refining the atoms that the cut goes through.

    Where the cut falls inside one index of a product's outer factor, that index is frozen, with the reason given.
    """
    here = resolve(term)
    if isinstance(here, Atom):
        left, right = Atom(at), Atom(here.size - at)
        _bind(here, Cat((left, right), here.size))
        return left, right
    if isinstance(here, Cat):
        return _split_concat(here, at, because)
    outer, inner = here.parts[0], prod(list(here.parts[1:]))
    whole, part = divmod(at, inner.size)
    if part == 0:
        first, second = split(outer, whole, because)
        return prod([first, inner]), prod([second, inner])
    before, unit, after = _isolate(outer, whole, because)
    freeze(unit, replace(because, why="an index that this operator cuts through"))
    low, high = split(inner, part, because)
    return cat([*([prod([before, inner])] if before else []), low]), cat([high, *([prod([after, inner])] if after else [])])


def _isolate(term: Term, index: int, because: Reason) -> tuple[Term | None, Term, Term | None]:
    before, rest = split(term, index, because) if index else (None, term)
    if resolve(rest).size == 1:
        return before, rest, None
    unit, after = split(rest, 1, because)
    return before, unit, after


def _split_concat(term: Cat, at: int, because: Reason) -> tuple[Term, Term]:
    left: list[Term] = []
    for i, part in enumerate(term.parts):
        size = part.size
        if at >= size:
            left.append(part)
            at -= size
            if at == 0:
                return cat(left), cat(list(term.parts[i + 1 :]))
        else:
            first, second = split(part, at, because)
            return cat([*left, first]), cat([second, *term.parts[i + 1 :]])
    raise Conflict("split beyond the end")


def _bind(atom: Atom, term: Term) -> None:
    if isinstance(term, Atom):
        if term.rank < atom.rank:
            atom, term = term, atom
        term.rank += atom.rank == term.rank
    elif any(atom is inner for inner in atoms(term)):
        raise Conflict("an axis would contain itself")
    atom.bound = term
    for reason in atom.frozen:
        freeze(term, reason)
    for label in atom.marks:
        mark(term, label)


def _align_segments(left: list[Term], right: list[Term], because: Reason) -> None:
    """Both lists are stacks in reverse order of the segments; sizes agree in total."""
    while left or right:
        a, b = _pop_segment(left), _pop_segment(right)
        if a.size > b.size:
            a, rest = split(a, b.size, because)
            left.append(rest)
        elif b.size > a.size:
            b, rest = split(b, a.size, because)
            right.append(rest)
        unify(a, b, because)


def _pop_segment(stack: list[Term]) -> Term:
    term = resolve(stack.pop())
    while isinstance(term, Cat):
        stack.extend(reversed(term.parts[1:]))
        term = resolve(term.parts[0])
    return term


def _align_products(left: list[Term], right: list[Term], because: Reason) -> None:
    """Match factors from the innermost outwards, factoring the larger one where the smaller divides it."""
    while left and right:
        a, b = _pop_factor(left), _pop_factor(right)
        if a.size == b.size:
            unify(a, b, because)
        elif a.size > b.size:
            left.append(_factor_out(a, b, because))
        else:
            right.append(_factor_out(b, a, because))
    if left or right:
        raise Conflict("products of different length")


def _pop_factor(stack: list[Term]) -> Term:
    term = resolve(stack.pop())
    while isinstance(term, Prod):
        stack.extend(term.parts[:-1])
        term = resolve(term.parts[-1])
    return term


def _factor_out(term: Term, inner: Term, because: Reason) -> Term:
    """Write `term` as outer * inner and return the outer factor."""
    count, rest = divmod(term.size, inner.size)
    if rest:
        raise Conflict(f"{term.size} does not factor by {inner.size}")
    if isinstance(term, Cat):
        outers: list[Term] = []
        for segment in term.parts:
            if segment.size % inner.size:
                raise Conflict(f"a segment of {segment.size} does not factor by {inner.size}")
            outer = Atom(segment.size // inner.size)
            unify(segment, prod([outer, inner]), because)
            outers.append(outer)
        return cat(outers)
    outer = Atom(count)
    unify(term, prod([outer, inner]), because)
    return outer
