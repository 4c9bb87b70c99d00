"""Side constraints on the widths: what a runtime, a kernel library or a checkpoint format asks of them beside the budget.

    uniform(*.attn.qkv.out.0)     the axes get one common size
    divisible(*.mlp.fc1.out, 64)  a multiple of 64 (a branch may still go whole)
    at_least(*.out, 16)           16 or more
    fixed(head.*)                 the size that it has; with a number, that size

A pattern is the name or an alias of one axis, or has the wildcards of a shell (* ? [..]) and is matched against the names.
Each constraint narrows the sizes that the allocator may choose from; axes with one common size become one variable of the
problem. So the plan keeps them exactly, and its certificate is about the best plan that does.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from billhook.ir.errors import AxisError, OptionError

if TYPE_CHECKING:
    from billhook.ir.axis import Axis
    from billhook.ir.program import Program

Kind: TypeAlias = Literal["uniform", "divisible", "at_least", "fixed"]
_CALL = re.compile(r"\s*(?P<kind>\w+)\s*\((?P<arguments>.*)\)\s*")
_FEW = 4  # sizes: an axis that would have fewer at the hardware's step is offered every allowed multiple


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint on all axes that one of the patterns matches; `str` and `parse_constraint` are inverse."""

    kind: Kind
    patterns: tuple[str, ...]
    number: int | None = None

    def __post_init__(self) -> None:
        if not self.patterns or not all(p.strip() for p in self.patterns):
            raise OptionError(f"{self.kind}: name at least one axis or pattern, such as *.mlp.*")
        if self.number is not None and self.number < 1:
            raise OptionError(f"{self}: the number must be 1 or more")

    def __str__(self) -> str:
        number = () if self.number is None else (str(self.number),)
        return f"{self.kind}({', '.join((*self.patterns, *number))})"


def uniform(*patterns: str) -> Constraint:
    """All axes that match get the same size: one width in all layers."""
    return Constraint("uniform", patterns)


def divisible(pattern: str, number: int) -> Constraint:
    """Every axis that matches gets a multiple of the number."""
    return Constraint("divisible", (pattern,), number)


def at_least(pattern: str, number: int) -> Constraint:
    """Every axis that matches keeps this many indices or more."""
    return Constraint("at_least", (pattern,), number)


def fixed(pattern: str, number: int | None = None) -> Constraint:
    """Every axis that matches keeps its size, or gets exactly the one given."""
    return Constraint("fixed", (pattern,), number)


def parse_constraint(text: "str | Constraint", option: str = "--constraint") -> Constraint:
    """Parse `uniform(PATTERN, ...)`, `divisible(PATTERN, N)`, `at_least(PATTERN, N)`, `fixed(PATTERN[, N])`.

    Raises OptionError for another form, naming the option.
    """
    if isinstance(text, Constraint):
        return text
    match = _CALL.fullmatch(text)
    kinds = get_args(Kind)
    if match is None or match["kind"] not in kinds:
        near = get_close_matches(match["kind"] if match else text, kinds, n=1)
        hint = f"; did you mean {near[0]}(...)?" if near else ""
        raise OptionError(f"{option} {text}: write uniform(A, B), divisible(A, 64), at_least(A, 16) or fixed(A){hint}")
    kind = cast("Kind", match["kind"])
    arguments = [a.strip() for a in match["arguments"].split(",")]
    number = int(arguments.pop()) if kind != "uniform" and arguments[-1].lstrip("-").isdigit() else None
    if kind in {"divisible", "at_least"} and number is None:
        raise OptionError(f"{option} {text}: the last argument of {kind} is a number, as in {kind}(*.mlp.*, 64)")
    return Constraint(kind, tuple(arguments), number)


@dataclass(frozen=True, slots=True)
class Demand:
    """What all constraints together ask of axes that share one size (mostly a single axis)."""

    axes: "tuple[Axis, ...]"
    multiple: int
    least: int
    pinned: int | None
    because: tuple[Constraint, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    def allows(self, size: int) -> bool:
        """Whether the axes may have this size; 0 is a multiple of everything."""
        return size % self.multiple == 0 and size >= self.least and self.pinned in {None, size}


def demands(program: "Program", constraints: Iterable[Constraint]) -> tuple[Demand, ...]:
    """One demand for every set of axes that a constraint ties or limits; axes that none matches are absent.

    A wildcard stands for the axes that can be cut; in `uniform` also for frozen ones, which pin the others to their size.
    Raises AxisError where a pattern matches no axis, and OptionError where the constraints contradict each other.
    """
    found = [(c, tuple(dict.fromkeys(a for p in c.patterns for a in _matching(program, p, c)))) for c in constraints]
    group_of: dict[str, tuple[Axis, ...]] = {axis.name: (axis,) for _, axes in found for axis in axes}
    for joined in (axes for c, axes in found if c.kind == "uniform"):
        whole = tuple(dict.fromkeys(member for axis in joined for member in group_of[axis.name]))
        group_of.update({axis.name: whole for axis in whole})
    return tuple(_demand(group, found) for group in dict.fromkeys(group_of.values()))


def uniform_groups(program: "Program", constraints: Iterable[Constraint]) -> tuple[tuple[str, ...], ...]:
    """Names of the axes that get one common size, group by group. Raises like `demands`."""
    return tuple(d.names for d in demands(program, constraints) if len(d.axes) > 1)


def constrained_sizes(
    program: "Program", sizes: Mapping[str, tuple[int, ...]], constraints: Iterable[Constraint]
) -> dict[str, tuple[int, ...]]:
    """The sizes that remain for every axis, ascending, and those that a constraint asks for where the hardware's step lacks them.

    Raises AxisError and OptionError, naming the axis, where a pattern matches nothing or no size is left.
    """
    result = dict(sizes)
    for demand in demands(program, constraints):
        allowed = [_allowed(axis, sizes[axis.name], demand) for axis in demand.axes]
        common = {s for s in allowed[0] if all(s in others for others in allowed)} or _largest(demand)
        if not common:
            listed = ", ".join(f"{a.name}[{a.size}]{'' if a.prunable else ' (frozen)'}" for a in demand.axes)
            raise OptionError(f"no size of {listed} satisfies {' and '.join(map(str, demand.because))}; relax a constraint")
        result.update(dict.fromkeys(demand.names, tuple(sorted(common))))
    return result


def _matching(program: "Program", pattern: str, constraint: Constraint) -> "list[Axis]":
    if not any(sign in pattern for sign in "*?["):
        return [program.axis(pattern)]
    named = [axis for axis in program.axes if fnmatchcase(axis.name, pattern)]
    usable = named if constraint.kind == "uniform" else [axis for axis in named if axis.prunable]
    if usable:
        return usable
    if named:
        raise AxisError(f"{constraint}: every axis that matches {pattern} is frozen, such as {named[0]}")
    names = [axis.name for axis in program.axes]
    near = get_close_matches(pattern.replace("*", ""), names, n=3, cutoff=0.3) or names[:3]
    raise AxisError(f"{constraint}: no axis matches {pattern}; there are {', '.join(near)}; `billhook trace` lists all")


def _demand(group: "tuple[Axis, ...]", found: "Sequence[tuple[Constraint, tuple[Axis, ...]]]") -> Demand:
    touching = [(c, axes) for c, axes in found if any(axis in group for axis in axes)]
    because = tuple(c for c, _ in touching)
    numbers = {kind: [c.number or 1 for c in because if c.kind == kind] for kind in ("divisible", "at_least")}
    pins = {axis.size if c.number is None else c.number for c, axes in touching if c.kind == "fixed" for axis in axes if axis in group}
    pins |= {axis.size for axis in group if not axis.prunable}
    if len(pins) > 1:
        names = ", ".join(axis.name for axis in group)
        asked = " and ".join(map(str, because))
        raise OptionError(f"{asked}: axes {names} would need the sizes {sorted(pins)} at once; relax a constraint")
    return Demand(group, math.lcm(*numbers["divisible"]), max(numbers["at_least"], default=0), next(iter(pins), None), because)


def _allowed(axis: "Axis", sizes: tuple[int, ...], demand: Demand) -> set[int]:
    """Of the offered sizes those that the demand allows; more of them where the hardware's step leaves too few."""
    offered = {s for s in sizes if demand.allows(s)}
    if axis.prunable and demand.multiple > 1:
        positive = [s for s in sizes if s > 0]
        step = math.lcm(demand.multiple, math.gcd(*positive[:-1])) if len(positive) > 1 else demand.multiple
        for stride in (step, demand.multiple):
            if len(offered) < _FEW:
                offered |= {s for s in range(stride, axis.size + 1, stride) if s >= positive[0] and demand.allows(s)}
        offered |= {s for s in (axis.size // demand.multiple * demand.multiple,) if s and demand.allows(s)}
    return offered


def _largest(demand: Demand) -> set[int]:
    """The largest size that all axes can have, where none of those that the hardware favours is common to them."""
    most = min(axis.size for axis in demand.axes)
    return set([s for s in range(1, most + 1) if demand.allows(s)][-1:])
