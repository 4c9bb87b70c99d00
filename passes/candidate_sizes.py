"""Which sizes an axis may get: those at which the target's kernels get cheaper, and 0 where a branch may go."""

import math
from collections.abc import Mapping, Sequence

from billhook.ir.axis import Axis
from billhook.ir.program import Program
from billhook.ir.target import Target

from .constraints import Constraint, constrained_sizes
from .removal import removable_axes

FLOOR = 0.1  # of an axis' size: below that, only removing it whole is offered


def candidate_sizes(
    program: Program, target: Target, *, floor: float = FLOOR, blocks: bool = True, constraints: Sequence[Constraint] = ()
) -> Mapping[str, tuple[int, ...]]:
    """Ascending sizes for every axis; a frozen axis has only its own.

    Sizes between two multiples of the step cost what the upper one costs, so only multiples (and the dense size) are
    offered. floor: smallest share of an axis that is kept; blocks: offer size 0 to axes whose branch may go.
    constraints: only sizes that keep them are offered, which need not include the dense one. Raises AxisError and OptionError
    where a constraint matches no axis or leaves it no size.
    """
    removable = {axis.name for axis in removable_axes(program)} if blocks else set[str]()
    sizes = {axis.name: _sizes(axis, target, floor, zero=axis.name in removable) for axis in program.axes}
    return constrained_sizes(program, sizes, constraints)


def _sizes(axis: Axis, target: Target, floor: float, *, zero: bool) -> tuple[int, ...]:
    if not axis.prunable:
        return (axis.size,)
    step = width_step(axis, target)
    least = max(axis.least, math.ceil(floor * axis.size))
    sizes = {axis.size, *(s for s in range(step, axis.size, step) if s >= least)}
    return tuple(sorted(sizes | ({0} if zero else set())))


def width_step(axis: Axis, target: Target) -> int:
    """The smallest step of the axis that moves every dimension it occurs in by a multiple of the target's step.

    An axis that is multiplied by others (heads by their width) needs a finer step of its own, down to 1.
    """
    step = 1
    for member in axis.members:
        repeats = math.prod(count for count, _ in member.place.loops) or 1
        step = math.lcm(step, target.width_step // math.gcd(target.width_step, repeats))
    return min(step, max(1, axis.size))


def dense_sizes(program: Program) -> dict[str, int]:
    """The present size of every axis."""
    return {axis.name: axis.size for axis in program.axes}


def with_dense(program: Program, candidates: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The candidates and the dense size of every axis: what costs are asked for."""
    return {axis.name: tuple(sorted({*candidates[axis.name], axis.size})) for axis in program.axes}


def whole_sizes(candidates: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The largest candidate of every axis: the dense network, unless constraints exclude it."""
    return {name: sizes[-1] for name, sizes in candidates.items()}


def uniform_sizes(candidates: Mapping[str, Sequence[int]], share: float) -> dict[str, int]:
    """For every axis that has a choice the candidate nearest to this share of it, never 0."""
    return {
        name: min((s for s in sizes if s), key=lambda s: abs(s - share * sizes[-1])) for name, sizes in candidates.items() if len(sizes) > 1
    }
