"""One side of every kernel: the cost models of methods that know only the widths a layer makes, or only those that it reads."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from .allocation_problem import AnyFactor, Factor, Floats, Problem, SumFactor, factor_scope

Side: TypeAlias = Literal["made", "read"]
Made: TypeAlias = Mapping[str, Collection[str]]  # name of a factor -> the axes that its kernel makes


def one_sided(problem: Problem, sizes: Mapping[str, int], side: Side, made: Made) -> Problem:
    """The problem in which every kernel costs as if only one side of it could change; the other has the given sizes.

    "made": over the widths that a kernel makes (HALP: a table over the output, the input as it was last); "read": over those
    that it reads (SMCP). A kernel that makes what it reads (a norm, a residual convolution) keeps its whole cost on the side
    that it makes, and is constant on the other. Resources and values stay.
    """
    factors: list[AnyFactor] = []
    constant = problem.constant
    for factor in problem.factors:
        scope = set(factor_scope(factor))
        makes = scope & set(made.get(factor.name, scope))
        frozen = scope - makes if side == "made" else makes
        left = _frozen(problem, factor, {n: sizes[n] for n in frozen})
        if isinstance(left, (Factor, SumFactor)):
            factors.append(left)
        else:
            constant += left
    return replace(problem, factors=tuple(factors), constant=constant)


def _frozen(problem: Problem, factor: AnyFactor, sizes: Mapping[str, int]) -> AnyFactor | float:
    """The factor with some variables at fixed sizes; a number where none is left."""

    def index(name: str) -> int | slice:
        return problem.variables[name].sizes.index(sizes[name]) if name in sizes else slice(None)

    if isinstance(factor, Factor):
        table = factor.table[tuple(index(n) for n in factor.variables)]
        return _factor(factor.name, [n for n in factor.variables if n not in sizes], table)
    table = factor.table[(slice(None), *(index(n) for n in factor.others))]
    others = tuple(n for n in factor.others if n not in sizes)
    if not set(factor.inputs) <= sizes.keys():  # a sum that is free in part stays whole
        return replace(factor, others=others, table=table)
    if any(sizes[n] == 0 for n in factor.needs):
        return 0.0
    return _factor(factor.name, others, table[int(np.searchsorted(factor.widths, sum(sizes[n] for n in factor.inputs)))])


def _factor(name: str, names: Collection[str], table: Floats) -> AnyFactor | float:
    return Factor(name, tuple(names), table) if names else float(table)
