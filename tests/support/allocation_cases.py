"""Allocation problems for tests: an exhaustive reference that shares no code with the solvers, random instances, network-like ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from billhook.passes.allocate import Factor, Problem, Resource, SumFactor, Variable

AnyFactor = Factor | SumFactor
Array: TypeAlias = np.ndarray[Any, Any]


@dataclass
class Enumeration:
    """All plans that keep the side constraints, with their totals."""

    names: tuple[str, ...]
    sizes: Array  # [plans, axes]
    value: Array
    seconds: Array
    fits: Array  # within the resources

    def best(self, budget: float) -> float:
        """The optimum, -inf if there is no plan."""
        good = self.fits & (self.seconds <= budget)
        return float(self.value[good].max()) if good.any() else -np.inf

    def fastest(self) -> float:
        return float(self.seconds[self.fits].min()) if self.fits.any() else np.inf


def brute_force(problem: Problem) -> Enumeration:
    """Every combination of candidates, looked up directly in the tables of the problem."""
    names = tuple(problem.variables)
    candidates = [problem.variables[n].sizes for n in names]
    index = np.stack([g.reshape(-1) for g in np.meshgrid(*[np.arange(len(c)) for c in candidates], indexing="ij")], axis=1)
    sizes = np.stack([np.array(c)[index[:, i]] for i, c in enumerate(candidates)], axis=1)
    place = {n: i for i, n in enumerate(names)}

    def column(factor: AnyFactor) -> Array:
        if isinstance(factor, Factor):
            return factor.table[tuple(index[:, place[n]] for n in factor.variables)]
        total = sum((sizes[:, place[n]] for n in factor.inputs), start=np.zeros(len(sizes), dtype=int))
        row = np.array([next(i for i, w in enumerate(factor.widths) if w >= t) for t in total])
        seconds = factor.table[(row, *(index[:, place[n]] for n in factor.others))]
        return np.where([all(plan[place[n]] for n in factor.needs) for plan in sizes], seconds, 0.0)

    def added(factors: tuple[AnyFactor, ...]) -> Array:
        return sum((column(f) for f in factors), start=np.zeros(len(index)))

    value = added(problem.value_factors) + sum(problem.variables[n].values[index[:, i]] for i, n in enumerate(names))
    seconds = added(problem.factors) + problem.constant
    allowed = np.isfinite(value) & np.isfinite(seconds)
    fits = np.ones(len(index), dtype=bool)
    for r in problem.resources:
        if r.combine == "sum":
            use = added(r.factors) + r.constant
            allowed &= np.isfinite(use)
            fits &= use <= r.limit
        else:
            for f in r.factors:
                allowed &= column(f) + r.constant <= r.limit
    for n, floor in problem.floors.items():
        allowed &= sizes[:, place[n]] >= floor
    for group in problem.uniform:
        allowed &= (sizes[:, [place[n] for n in group]] == sizes[:, [place[group[0]]]]).all(axis=1)
    for group in problem.keep_one:
        allowed &= (sizes[:, [place[n] for n in group]] > 0).any(axis=1)
    return Enumeration(names, sizes[allowed], value[allowed], seconds[allowed], fits[allowed])


@st.composite
def problems(draw: st.DrawFn, resources: bool = False) -> Problem:
    """Small problems of every structure: chain, residual ring, tree or arbitrary, with every kind of side constraint."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 5))
    names = [f"v{i}" for i in range(count)]
    grid = st.lists(st.sampled_from([0, 8, 16, 24, 40]), min_size=1, max_size=4, unique=True).map(sorted)
    variables = {n: Variable(tuple(s), _values(rng, len(s))) for n, s in ((n, draw(grid)) for n in names)}
    edges = draw(st.sampled_from([_chain, _ring, _tree]))(names)
    factors = [_factor(rng, f"f{i}", e, variables, np.inf) for i, e in enumerate(edges)]
    extra = st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=3).map(tuple), max_size=2)
    factors += [_factor(rng, f"x{i}", e, variables, np.inf) for i, e in enumerate(draw(extra))]
    factors += [_sum_factor(rng, f"s{i}", e, variables) for i, e in enumerate(draw(st.lists(_concatenations(names), max_size=3)))]
    groups = st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True).map(tuple), max_size=1)
    return Problem(
        variables,
        tuple(factors),
        constant=draw(st.sampled_from([0.0, 0.5])),
        value_factors=tuple(_factor(rng, f"y{i}", e, variables, -np.inf) for i, e in enumerate(draw(extra))),
        resources=_resources(draw, rng, names, variables) if resources else (),
        floors={n: draw(st.sampled_from([0, 8])) for n in names if variables[n].sizes[-1] >= 8},
        uniform=tuple(g for g in draw(groups) if any(s >= 8 and all(s in variables[n].sizes for n in g) for s in variables[g[0]].sizes)),
        keep_one=tuple(draw(groups)),
    )


def _resources(draw: st.DrawFn, rng: np.random.Generator, names: list[str], variables: dict[str, Variable]) -> tuple[Resource, ...]:
    bytes_ = tuple(_factor(rng, f"w{i}", e, variables, np.inf) for i, e in enumerate(_chain(names)))
    memory = _factor(rng, "m", (names[0],), variables, np.inf)
    share = draw(st.sampled_from([0.2, 0.5, 0.8]))
    most = sum(float(np.where(np.isfinite(f.table), f.table, 0).max()) for f in bytes_)
    return Resource("weights", share * most, bytes_, 0.1), Resource("memory", draw(st.sampled_from([0.5, 2.0])), (memory,), combine="peak")


def _values(rng: np.random.Generator, count: int) -> Array:
    return np.sort(rng.integers(0, 20, count) / 4.0) if rng.random() < 0.8 else rng.normal(size=count)


def _chain(names: list[str]) -> list[tuple[str, ...]]:
    return list(pairwise(names)) or [(names[0],)]


def _ring(names: list[str]) -> list[tuple[str, ...]]:
    return [*_chain(names), (names[-1], names[0])]


def _tree(names: list[str]) -> list[tuple[str, ...]]:
    return [(names[(i - 1) // 2], n) for i, n in enumerate(names) if i] or [(names[0],)]


def _factor(rng: np.random.Generator, name: str, scope: tuple[str, ...], variables: dict[str, Variable], forbidden: float) -> Factor:
    table = rng.gamma(1.0, 1.0, [len(variables[n].sizes) for n in scope])
    if rng.random() < 0.3:
        table[rng.random(table.shape) < 0.15] = forbidden
    return Factor(name, scope, table)


def _concatenations(names: list[str]) -> st.SearchStrategy[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(what is added up, what the table is over beside the sum)"""
    return st.tuples(*(st.lists(st.sampled_from(names), min_size=n, max_size=m).map(tuple) for n, m in ((1, 4), (0, 2))))


def _sum_factor(
    rng: np.random.Generator, name: str, scope: tuple[tuple[str, ...], tuple[str, ...]], variables: dict[str, Variable]
) -> SumFactor:
    inputs, others = scope
    widths = tuple(range(0, sum(variables[n].sizes[-1] for n in inputs) + 16, 16))
    table = np.cumsum(rng.gamma(1.0, 0.3, [len(widths), *(len(variables[n].sizes) for n in others)]), axis=0)
    return SumFactor(name, inputs, others, widths, table, tuple(n for n in sorted(set(inputs)) if rng.random() < 0.2))


def axis(rng: np.random.Generator, count: int, removable: bool = False) -> Variable:
    """An axis of `count` candidates in steps of 8 with concave retained saliency."""
    gains = np.sort(rng.gamma(1.0, 1.0, count))[::-1] * rng.gamma(2.0)
    return Variable(tuple(8 * (i + (not removable)) for i in range(count)), np.cumsum(gains) - removable * gains[0])


def kernel_seconds(rng: np.random.Generator, read: Array, written: Array, stairs: bool) -> Array:
    """Seconds of a convolution over its widths, smooth or with the staircase and the noise of a real one; nothing is nothing."""
    if stairs:
        read, written = -(-read // 32) * 32, -(-written // 16) * 16
    table = 1e-6 * (rng.uniform(0.5, 4.0) * np.outer(read, written) / 64 + np.outer(read > 0, written > 0))
    return table * rng.uniform(0.9, 1.1, table.shape) if stairs else table


def residual_network(axes: int, choices: int, seed: int, stairs: bool = True) -> Problem:
    """Stages of bottlenecks on one residual axis each, whose two inner axes may get size 0: three kernels a block."""
    rng = np.random.default_rng(seed)
    variables: dict[str, Variable] = {}
    factors: list[Factor] = []

    def connect(a: str, b: str) -> None:
        table = kernel_seconds(rng, np.array(variables[a].sizes), np.array(variables[b].sizes), stairs)
        factors.append(Factor(f"{a}->{b}", (a, b), table))

    stage = ""
    for number in range(axes):
        if number % 11 == 0:
            before, stage = stage, f"stage{number // 11}"
            variables[stage] = axis(rng, choices)
            if before:
                connect(before, stage)
        else:
            variables[f"inner{number}"] = axis(rng, choices, removable=True)
            if number % 11 % 2 == 1:
                connect(stage, f"inner{number}")
            else:
                connect(f"inner{number - 1}", f"inner{number}")
                connect(f"inner{number}", stage)
    return Problem(variables, tuple(factors))


def chain_network(axes: int, choices: int, seed: int, stairs: bool = True) -> Problem:
    """A plain chain of convolutions."""
    rng = np.random.default_rng(seed)
    variables = {f"v{i}": axis(rng, choices) for i in range(axes)}
    sizes = {n: np.array(v.sizes) for n, v in variables.items()}
    pairs = list(pairwise(variables))
    return Problem(variables, tuple(Factor(f"{a}->{b}", (a, b), kernel_seconds(rng, sizes[a], sizes[b], stairs)) for a, b in pairs))


def dense_network(blocks: tuple[int, ...], choices: int, seed: int, stairs: bool = True) -> Problem:
    """DenseNet: every layer reads the concatenation of all earlier ones of its block; removable growth in steps of 8 up to 32."""
    rng = np.random.default_rng(seed)
    variables = {"stem": axis(rng, 8)}
    factors: list[AnyFactor] = []

    def reads(inputs: tuple[str, ...], output: str) -> SumFactor:
        widths = tuple(range(0, sum(variables[n].sizes[-1] for n in inputs) + 1, 8))
        table = kernel_seconds(rng, np.array(widths), np.array(variables[output].sizes), stairs)
        return SumFactor(f"cat->{output}", inputs, (output,), widths, table)

    def layers() -> Iterator[AnyFactor]:
        inputs: tuple[str, ...] = ("stem",)
        for block, depth in enumerate(blocks):
            for layer in range(depth):
                inner, grown = f"inner{block}.{layer}", f"grown{block}.{layer}"
                variables[inner], variables[grown] = axis(rng, choices), axis(rng, 5, removable=True)
                yield reads(inputs, inner)
                table = kernel_seconds(rng, np.array(variables[inner].sizes), np.array(variables[grown].sizes), stairs)
                yield Factor(f"{inner}->{grown}", (inner, grown), table)
                inputs = (*inputs, grown)
            variables[f"transition{block}"] = axis(rng, 2 * choices)
            yield reads(inputs, f"transition{block}")
            inputs = (f"transition{block}",)

    factors.extend(layers())
    return Problem(variables, tuple(factors))


def largest_sizes(problem: Problem) -> dict[str, int]:
    """The largest size of every axis."""
    return {n: v.sizes[-1] for n, v in problem.variables.items()}
