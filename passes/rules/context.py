"""What an operator rule sees: the terms of a node's arguments, and the verbs by which it states its equations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast, final

from torch import fx

from billhook.ir.axis import Reason, Role
from billhook.ir.program import Edit, Read, shape_of, tensor_args
from billhook.ir.source import source_line
from billhook.passes.unify import Atom, Conflict, Term, freeze, mark, prod, split, unify

Terms: TypeAlias = tuple[Term, ...]
Result: TypeAlias = Terms | list[Terms]


@dataclass(frozen=True, slots=True)
class TermSize:
    """In an edit under construction: the extent of a term, once solved."""

    term: Term


@dataclass(frozen=True, slots=True)
class PendingEdit:
    """An `Edit` whose sizes are still terms. With `when`, it is kept only if one of those terms turns out to hold an axis."""

    edit: Edit
    when: Terms | None = None


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A `Read` of the whole dimension, or of a part that is still a term."""

    read: Read
    part: Term | None = None


@final
class Context:
    """State of one inference: terms per node, edits, reads and member roles."""

    def __init__(self) -> None:
        self.terms: dict[fx.Node, Result] = {}
        self.edits: dict[str, PendingEdit] = {}
        self.reads: list[PendingRead] = []
        self.roles: dict[tuple[str, int], Role] = {}
        self.dropped: dict[str, list[Term]] = {}
        self.floors: list[tuple[Term, int]] = []
        self.pointers: dict[tuple[fx.Node, int | None], Term] = {}  # by value, and which of several results
        self.looked: set[tuple[fx.Node, fx.Node]] = set()
        self._places: dict[fx.Node, Reason] = {}

    def dims(self, value: Any) -> Terms:
        """Terms of a single-tensor value, one for each dimension."""
        terms = self.terms[value]
        if isinstance(terms, list):
            raise TypeError(f"{value} is a tuple of tensors")
        return terms

    def bind(self, node: fx.Node) -> dict[str, Any]:
        """Arguments by schema name, defaults filled in."""
        schema: list[Any] = list(cast("Any", node.target)._schema.arguments)
        bound: dict[str, Any] = {}
        for i, argument in enumerate(schema):
            if i < len(node.args):
                bound[argument.name] = node.args[i]
            else:
                bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
        return bound

    def fresh(self, shape: Sequence[int]) -> Terms:
        """New free terms of the given sizes."""
        return tuple(Atom(int(size)) for size in shape)

    def positions(self, node: fx.Node, shape: Sequence[int]) -> Terms:
        """New terms for positions that an operator lays out (space, repeats): they exist together or not at all."""
        terms = self.fresh(shape)
        self.freeze(node, "positions laid out by this operator", *terms)
        return terms

    def reason(self, node: fx.Node, why: str) -> Reason:
        """A reason that names the node, its operator and the user's source line."""
        place = self._places.get(node)
        if place is None:
            place = self._places[node] = Reason(node.name, str(node.target), "", source_line(node))
        return replace(place, why=why) if why else place

    def equate(self, node: fx.Node, left: Term, right: Term) -> Term:
        """State that two dimensions are the same; where that cannot be solved, both are frozen with the reason."""
        try:
            unify(left, right, self.reason(node, ""))
        except Conflict as conflict:
            self.freeze(node, f"dimensions cannot be matched: {conflict}", left, right)
        return left

    def split(self, node: fx.Node, term: Term, at: int) -> tuple[Term, Term]:
        """Cut a dimension in two at a position."""
        return split(term, at, self.reason(node, ""))

    def freeze(self, node: fx.Node, why: str, *terms: Term) -> None:
        reason = self.reason(node, why)
        for term in terms:
            freeze(term, reason)

    def read(
        self, node: fx.Node, value: fx.Node, dim: int, *, statistic: bool = False, part: Term | None = None, fill: float | None = None
    ) -> None:
        """The node sums (or takes a statistic) over dimension `dim` of its argument `value`.

        A sum over nothing is zero (or the operator's bias); a statistic needs at least one index. An axis of an argument
        that the result lacks must be read or dropped, or it is frozen. part: what is read, if not the whole dimension.
        fill: what stands for a removed index in the reference, if not zero.
        """
        term = self.dims(value)[dim]
        if term.size > 1:
            read = Read(node.name, tensor_args(node).index(value), dim % len(self.dims(value)), statistic, fill=fill)
            self.reads.append(PendingRead(read, part))
            if statistic:
                mark(part or term, "mixing")
                mark(part or term, "nonempty")

    def drop(self, node: fx.Node, *terms: Term) -> None:
        """The node leaves these dimensions of its arguments out without looking at them, as a slice does."""
        self.dropped.setdefault(node.name, []).extend(terms)

    def point(self, node: fx.Node, term: Term, item: int | None = None) -> None:
        """The node's value (or one of its several results) holds numbers of indices of this dimension."""
        self.pointers[node, item] = term

    def pointed(self, value: Any) -> Term | None:
        """The dimension whose indices a value names by number, or None."""
        return self.pointers.get((value, None))

    def look_up(self, node: fx.Node, numbers: fx.Node, term: Term) -> bool:
        """The node takes its indices along a dimension from a value; False where that value does not name indices of an axis.

        After a cut such a value names kept indices alone, by their new numbers: the dimension is that axis.
        """
        known = self.pointed(numbers)
        if known is None:
            return False
        self.looked.add((node, numbers))
        self.equate(node, known, term)
        return True

    def keep_at_least(self, term: Term, count: int) -> None:
        """The node needs this many indices of a dimension."""
        self.floors.append((term, count))

    def keep_nonempty(self, *terms: Term) -> None:
        """Size 0 has no meaning for these dimensions."""
        for term in terms:
            mark(term, "nonempty")

    def extent(self, *terms: Term) -> None:
        """These dimensions are windows of a kernel: extents, not axes."""
        for term in terms:
            mark(term, "extent")

    def role(self, value: Any, dim: int, role: Role) -> None:
        """The part that a dimension of a state tensor plays."""
        if isinstance(value, fx.Node) and value.op == "get_attr":
            self.roles.setdefault((str(value.target), dim % max(1, len(self.dims(value)))), role)

    def edit(
        self, node: fx.Node, changes: Mapping[str, Any], *, op: Any = None, scale: float | None = None, when: Terms | None = None
    ) -> None:
        """Declare how arguments (by schema name of `op`, else of the node's operator) follow the axes after a cut."""
        if op is not None:
            self.edits[node.name] = PendingEdit(Edit(tuple(changes.values()), (), op, scale), when)
            return
        bound = {**self.bind(node), **changes}
        schema: list[Any] = list(cast("Any", node.target)._schema.arguments)
        args = tuple(bound[a.name] for a in schema if not a.kwarg_only)
        kwargs = tuple((a.name, bound[a.name]) for a in schema if a.kwarg_only)
        self.edits[node.name] = PendingEdit(Edit(args, kwargs, None, scale), when)

    def broadcast(self, node: fx.Node, values: Sequence[fx.Node], shape: Sequence[int]) -> Terms:
        """Equate the dimensions of values that are broadcast together to `shape`."""
        result: list[Term] = []
        operands = [(self.dims(v), len(self.dims(v))) for v in values]
        rank = len(shape)
        for i, size in enumerate(shape):
            term: Term | None = None
            for dims, length in operands:
                j = i - rank + length
                if j < 0 or dims[j].size != size:
                    continue
                if term is None:
                    term = dims[j]
                elif size > 1 and dims[j] is not term:
                    self.equate(node, term, dims[j])
            result.append(term if term is not None else Atom(int(size)))
        return tuple(result)

    def regroup(self, node: fx.Node, terms: Sequence[Term], sizes: Sequence[int]) -> Terms:
        """Terms after a row-major reshape: blocks of dimensions with equal products are merged and split."""
        if 0 in sizes:
            return self.positions(node, sizes)
        out: list[Term | None] = [Atom(1) if size == 1 else None for size in sizes]
        before = [t for t in terms if t.size != 1]
        after = [i for i, size in enumerate(sizes) if size != 1]
        i = j = 0
        while i < len(before) and j < len(after):
            left, right = [before[i]], [after[j]]
            total, wanted = before[i].size, sizes[after[j]]
            while total != wanted:
                if total < wanted:
                    i += 1
                    left.append(before[i])
                    total *= before[i].size
                else:
                    j += 1
                    right.append(after[j])
                    wanted *= sizes[after[j]]
            i, j = i + 1, j + 1
            self._regroup_block(node, left, right, sizes, out)
        return tuple(t if t is not None else Atom(int(s)) for t, s in zip(out, sizes, strict=True))

    def _regroup_block(self, node: fx.Node, left: list[Term], right: list[int], sizes: Sequence[int], out: list[Term | None]) -> None:
        whole = prod(left) if len(left) > 1 else left[0]
        if len(right) == 1:
            out[right[0]] = whole
            return
        parts: list[Term] = [Atom(int(sizes[k])) for k in right]
        self.equate(node, prod(parts), whole)
        for k, part in zip(right, parts, strict=True):
            out[k] = part

    def sizes(self, terms: Sequence[Term]) -> list[TermSize]:
        """Shape constants that follow the given terms."""
        return [TermSize(t) for t in terms]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return shape_of(node)
