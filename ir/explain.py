"""Why indices belong together: an axis told as text, with the tensors that lose them and the operators that they run through."""

from collections.abc import Iterator, Sequence

from torch import fx

from .axis import Axis, Member
from .dims import Dim, leaves
from .program import Program, Read, state_of, tensor_args
from .source import source_line

ROLES = {"producer": "makes it", "scale": "scales it", "consumer": "reads it"}
MOST = 40  # lines of a list; an axis of a very deep residual network has thousands


def explain_axis(program: Program, name: str, kept: Sequence[int] | None = None, most: int = MOST) -> str:
    """Which parameters move together with the axis and through which nodes, for people.

    kept: the indices that a plan keeps, or None; most: lines of each list before the rest is counted only.
    Raises AxisError if no axis has this name or alias.
    """
    axis = program.axis(name)
    lines = [_title(axis)]
    if axis.aliases:
        lines.append(f"also called {', '.join(_shortened(axis.aliases, 4))}")
    lines += [f"frozen: {reason}" for reason in axis.frozen_because]
    if axis.mixing:
        lines.append("mixing: an operator takes a statistic over it, so removing indices changes the others")
    if kept is not None:
        lines.append(f"the plan keeps {len(kept)} of {axis.size}: {_ranges(kept) or 'none'}")
    elements = _elements(program, axis)
    lines += ["", f"one index is {elements:,} elements in {len({m.tensor for m in axis.members})} tensors:"]
    lines += _shortened(_columns([_member(program, member) for member in axis.members]), most)
    lines += ["", "it runs through:"]
    lines += _shortened(_columns(list(_nodes(program, axis))), most)
    return "\n".join(line.rstrip() for line in lines)


def _title(axis: Axis) -> str:
    least = "nothing" if axis.additive else "one" if axis.least == 1 else str(axis.least)
    state = "frozen" if axis.frozen_because else f"prunable, down to {least}"
    return f"axis {axis.name}: {axis.size} indices, {state}"


def _elements(program: Program, axis: Axis) -> int:
    """Elements that one index takes away, all tensors together; a tensor that has the axis twice is counted twice."""
    return sum(state_of(program.graph, m.tensor).numel() // state_of(program.graph, m.tensor).shape[m.dim] * _runs(m) for m in axis.members)


def _runs(member: Member) -> int:
    """Positions of one index along the member's dimension."""
    count = 1
    for repeats, _ in member.place.loops:
        count *= repeats
    return count


def _member(program: Program, member: Member) -> tuple[str, ...]:
    shape = state_of(program.graph, member.tensor).shape
    return ROLES[member.role], member.tensor, f"dim {member.dim} of {list(shape)}", _where(member, shape[member.dim])


def _where(member: Member, extent: int) -> str:
    """Which positions of the dimension are the axis; nothing where all are, one each."""
    place = member.place
    if place.loops:
        return f"{_runs(member)} positions each, the first from {place.offset} in steps of {place.stride}"
    if place.stride > 1:
        return f"from {place.offset} in steps of {place.stride}"
    return "" if place.size == extent else f"positions {place.offset}..{place.offset + place.size - 1}"


def _nodes(program: Program, axis: Axis) -> Iterator[tuple[str, ...]]:
    """Calls that see the axis, in order, what each does with it, and where the user wrote it."""
    reads: dict[str, list[Read]] = {}
    for read in program.reads:
        reads.setdefault(read.node, []).append(read)
    for node in program.nodes():
        deed = _deed(program, node, axis.name, reads.get(node.name, [])) if node.op == "call_function" else ""
        if deed:
            yield node.name, str(node.target).removesuffix(".default"), deed, source_line(node)


def _deed(program: Program, node: fx.Node, name: str, reads: Sequence[Read]) -> str:
    """What a call does with the axis, or nothing."""
    arguments = tensor_args(node)
    having = [arg for arg in arguments if _has(program.types.get(arg.name, ()), name)]
    after = _has(program.types.get(node.name, ()), name)
    read = [r for r in reads if _has(program.types.get(arguments[r.position].name, ())[r.dim : r.dim + 1], name)]
    if any(r.statistic for r in read):
        return "takes a statistic over it"
    if read:
        return "sums over it and makes it anew" if after else "sums over it"
    if after:
        return "carries it" if any(arg.op != "get_attr" for arg in having) else "makes it"
    return "leaves it out" if having else ""


def _has(dims: tuple[Dim, ...], name: str) -> bool:
    return any(leaf.name == name for dim in dims for leaf in leaves(dim))


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as indented lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _shortened(lines: Sequence[str], most: int) -> list[str]:
    return list(lines) if len(lines) <= most else [*lines[:most], f"  ... and {len(lines) - most} more"]


def _ranges(indices: Sequence[int]) -> str:
    """As `0..3, 7, 9..11`."""
    runs: list[list[int]] = []
    for i in sorted(indices):
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(_shortened([str(r[0]) if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in runs], 12)).replace("  ...", "...")
