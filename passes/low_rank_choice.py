"""Which layers to factor: both forms of every layer priced in one allocation problem.

The program with all layers factored has an axis for each rank. Its largest size, the full rank, stands for the layer as it was: it costs
what the one kernel costs, and retains everything. Every smaller size costs its two kernels. So a rank is chosen exactly where two thin
kernels and what they lose are a better use of the time than a narrower layer, and elsewhere the layer stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from billhook.costmodel.network_cost import CostTable, CostTables
from billhook.ir.program import Program

from .allocate import Factor, Problem, SumFactor
from .allocation_problem import AnyFactor, factor_scope
from .low_rank import full_rank, rank_name
from .readers import Reader
from .width_problem import table_factor

_MOST = 4  # variables that a factor can have


def with_both_forms(
    problem: Problem,
    program: Program,
    layers: Sequence[Reader],
    candidates: Mapping[str, Sequence[int]],
    dense: CostTables,
) -> tuple[Problem, dict[str, Reader]]:
    """The problem of the factored program in which full rank is the layer as it was, and the layers with that choice by their rank's axis.

    program: with one layer each for `layers`; problem, candidates: of the program with two. dense: cost tables of `program`.
    A layer whose kernels are not told apart, or touch too many axes, has no choice: its rank is held full, at the cost of one kernel where
    that is known, else of two.
    """
    one = {table.name: table for table in reversed(dense.tables)}  # the first of a name: changes of its layout come behind
    offered: dict[str, Reader] = {}
    floors = dict(problem.floors)
    for layer in layers:
        rank = _rank(problem, layer, program)
        if rank is None:
            continue
        pair = [f for f in problem.factors if rank in factor_scope(f)]
        single = _single(pair, rank, one, candidates)
        kept = None
        if single is not None:
            factor = table_factor(single, candidates, problem.variables)
            kept = _only_at_full(factor, rank, len(problem.variables[rank].sizes))
            off = {id(f): _not_at_full(f, rank) for f in pair}
            problem = replace(problem, factors=(*(off.get(id(f), f) for f in problem.factors), kept or factor))
        if kept is None:
            floors[rank] = problem.variables[rank].sizes[-1]
        else:
            offered[rank] = layer
    return replace(problem, floors=floors), offered


def _rank(problem: Problem, layer: Reader, program: Program) -> str | None:
    """The variable of a layer's rank, if it has a choice that ends at full rank."""
    name = rank_name(layer)
    variable = problem.variables.get(name)
    return name if variable is not None and variable.sizes[-1] == full_rank(program, layer) and len(variable.sizes) > 1 else None


def _single(
    pair: Sequence[AnyFactor], rank: str, one: Mapping[str, CostTable], candidates: Mapping[str, Sequence[int]]
) -> CostTable | None:
    """The table of the one kernel that a pair stands for: it has the name of the second, which makes the same value."""
    found = [one[f.name] for f in pair if f.name in one]
    if len(found) != 1 or any(isinstance(f, SumFactor) and rank in f.inputs for f in pair):
        return None
    known = all(a in candidates for c in found[0].coordinates for a in c.axes)
    return found[0] if known else None


def _not_at_full(factor: AnyFactor, rank: str) -> AnyFactor:
    table = np.array(factor.table)
    axis = factor.variables.index(rank) if isinstance(factor, Factor) else 1 + factor.others.index(rank)
    table[(slice(None),) * axis + (-1,)] = 0.0
    return replace(factor, table=table)


def _only_at_full(factor: AnyFactor, rank: str, sizes: int) -> AnyFactor | None:
    """None where there is no room for one more variable."""
    table = np.zeros((*factor.table.shape, sizes))
    table[..., -1] = factor.table
    name = f"{factor.name} as it was"
    if isinstance(factor, Factor):
        return Factor(name, (*factor.variables, rank), table) if len(factor.variables) < _MOST else None
    return replace(factor, name=name, others=(*factor.others, rank), table=table) if len(factor.others) < 2 else None


def chosen_layers(sizes: Mapping[str, int], offered: Mapping[str, Reader], program: Program) -> tuple[Reader, ...]:
    """The layers that a solution gives less than full rank, in execution order. program: before they were factored."""
    return tuple(layer for rank, layer in offered.items() if sizes[rank] < full_rank(program, layer))
