"""From scores and latency tables to an allocation problem, and from its solution to a plan."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from billhook.costmodel.network_cost import CostTable, CostTables
from billhook.ir.errors import OptionError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program

from .allocate import Factor, Problem, SumFactor, Variable
from .allocation_problem import AnyFactor
from .saliency import Floats, Scores, best_indices


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
    factors = tuple(_factor(table, candidates, variables) for table in costs.tables)
    tied = tuple(tuple(name for name in group if name in variables) for group in uniform)  # the others have no choice
    return Problem(variables, factors, costs.constant, keep_one=tuple(keep_one), uniform=tuple(filter(None, tied)))


def plan_of(program: Program, scores: Scores, sizes: Mapping[str, int]) -> Plan:
    """The plan that keeps the best indices of every axis."""
    return make_plan(program, {name: best_indices(scores[name], size) for name, size in sizes.items() if size < program.axis(name).size})


def _factor(table: CostTable, candidates: Mapping[str, Sequence[int]], variables: Mapping[str, Variable]) -> AnyFactor:
    """A table as a factor over the axes that have a choice; those that have none are indexed away."""
    sums = [c for c in table.coordinates if len(c) > 1]
    seconds = table.seconds
    if not sums:
        fixed = tuple(slice(None) if c[0] in variables else 0 for c in table.coordinates)
        names = tuple(c[0] for c in table.coordinates if c[0] in variables)
        if len(set(names)) < len(names):
            return _diagonal(table.name, names, seconds[fixed])
        return Factor(table.name, names, seconds[fixed])
    if len(sums) > 1 or len(table.coordinates) > 2:
        raise OptionError(
            f"kernel {table.name} reads {len(sums)} concatenations and {len(table.coordinates)} widths; at most 1 and 2 are supported"
        )
    inputs = tuple(axis for axis in sums[0] if axis in variables)
    offset = sum(candidates[axis][0] for axis in sums[0] if axis not in variables)
    widths = tuple(w - offset for w in table.widths[0])
    output = table.coordinates[1][0] if len(table.coordinates) == 2 else None
    if output is not None and output not in variables:
        return SumFactor(table.name, inputs, None, widths, seconds[:, 0])
    return SumFactor(table.name, inputs, output, widths, seconds)


def _diagonal(name: str, names: tuple[str, ...], seconds: NDArray[np.float64]) -> Factor:
    """A kernel that meets one axis twice (its input and its output) costs the diagonal of its table."""
    first = names[0]
    if set(names) != {first}:
        raise OptionError(f"kernel {name} meets an axis twice beside others: {names}")
    return Factor(name, (first,), np.einsum("a" * len(names) + "->a", seconds))
