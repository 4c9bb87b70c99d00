"""From scores and latency tables to an allocation problem, and from its solution to a plan."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from billhook.costmodel.family import Coordinate, width
from billhook.costmodel.network_cost import CostTable, CostTables
from billhook.ir.errors import OptionError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program

from .allocate import Factor, Problem, SumFactor, Variable
from .allocation_problem import AnyFactor
from .saliency import Floats, Scores, best_indices

_TOTAL = "the sum"  # no axis has a space in its name


def width_problem(
    program: Program,
    worth: Mapping[str, Floats],
    candidates: Mapping[str, Sequence[int]],
    costs: CostTables,
    *,
    keep_one: Sequence[tuple[str, ...]] = (),
    uniform: Sequence[tuple[str, ...]] = (),
) -> Problem:
    """Maximise the sum of the axes' worths; the tables are in seconds, axes whose one candidate is their present size are constants.

    worth: V(k) for k = 0 .. size of every axis with a choice: retained scores, or what probes measured. uniform: groups of
    axes that get the same size (`constraints.uniform_groups`).
    """
    variables: dict[str, Variable] = {}
    for axis in program.axes:
        sizes = tuple(candidates[axis.name])
        if len(sizes) > 1:
            variables[axis.name] = Variable(sizes, np.array([worth[axis.name][s] for s in sizes]))
        elif sizes != (axis.size,):  # no choice, but a cut
            variables[axis.name] = Variable(sizes, np.zeros(1))
    factors = tuple(table_factor(table, candidates, variables) for table in costs.tables)
    tied = tuple(tuple(name for name in group if name in variables) for group in uniform)  # the others have no choice
    return Problem(variables, factors, costs.constant, keep_one=tuple(keep_one), uniform=tuple(filter(None, tied)))


def plan_of(program: Program, scores: Scores, sizes: Mapping[str, int]) -> Plan:
    """The plan that keeps the best indices of every axis."""
    return make_plan(program, {name: best_indices(scores[name], size) for name, size in sizes.items() if size < program.axis(name).size})


def table_factor(table: CostTable, candidates: Mapping[str, Sequence[int]], variables: Mapping[str, Variable]) -> AnyFactor:
    """A table over widths as a factor over the axes that these follow from and that have a choice."""
    sizes = {a: variables[a].sizes if a in variables else tuple(candidates[a][:1]) for c in table.coordinates for a in c.axes}
    sums = [f for c in table.coordinates for f in c.factors if len({a for a in f if a in variables}) > 1]
    if not sums:
        names = _chosen(table.coordinates, variables)
        return Factor(table.name, names, _over(table, table.coordinates, names, sizes))
    (summed, *more), inputs = sums, tuple(a for a in sums[0] if a in variables)
    rest = tuple(_with_total(c, summed) for c in table.coordinates)
    others = _chosen(rest, variables)
    if more or len(others) > 2:
        raise OptionError(
            f"kernel {table.name} has the widths {', '.join(map(str, table.coordinates))}: at most one sum and two axes beside it"
        )
    reached = width(*inputs).reach(sizes)
    offset = sum(sizes[a][0] for a in summed if a not in variables)
    seconds = _over(table, rest, (_TOTAL, *others), {**sizes, _TOTAL: tuple(s + offset for s in reached)})
    needs = {a for c in table.coordinates if summed in c.factors for a in c.needs if a in inputs}
    return SumFactor(table.name, inputs, others, reached, seconds, tuple(sorted(needs)))


def _chosen(coordinates: Sequence[Coordinate], variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """The axes with a choice that coordinates follow from, each once."""
    return tuple(dict.fromkeys(a for c in coordinates for a in c.axes if a in variables))


def _with_total(coordinate: Coordinate, summed: tuple[str, ...]) -> Coordinate:
    """The coordinate with an axis in place of its sum; what needs the parts of the sum is left out."""
    if summed not in coordinate.factors:
        return coordinate
    factors = tuple((_TOTAL,) if f == summed else f for f in coordinate.factors)
    return Coordinate(factors, tuple(a for a in coordinate.needs if a not in summed))


def _over(
    table: CostTable, coordinates: Sequence[Coordinate], names: tuple[str, ...], sizes: Mapping[str, Sequence[int]]
) -> NDArray[np.float64]:
    """The seconds of a table for every combination of sizes of the named axes; the others have one size."""
    grid = np.indices([len(sizes[n]) for n in names], sparse=True)
    at = {a: np.asarray(s, dtype=np.intp)[grid[names.index(a)] if a in names else 0] for a, s in sizes.items()}
    rows = [np.searchsorted(widths, c.over(at)) for widths, c in zip(table.widths, coordinates, strict=True)]
    return table.seconds[tuple(rows)]
