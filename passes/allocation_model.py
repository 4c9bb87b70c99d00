"""A problem reduced to what the solvers work on: numbered variables, tables over them, and sums as variables of their own.

Uniform groups become one variable and floors drop candidates. A sum of sizes (the input of a kernel that reads a concatenation)
becomes a chain of auxiliary variables p = left + right over the reachable sums, prefixes shared; "not all zero" is the same
chain over counts. All tables have one channel per quantity: 0 is the value, 1 the seconds, then the summed resources.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from billhook.ir.errors import OptionError

from .allocation_problem import AnyFactor, Bools, Factor, Floats, Ints, Problem, SumFactor


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """gains[i, j, ..., k]: what the states (i, j, ...) of `scope` add to channel k; allowed[i, j, ...]: may they occur at all?"""

    scope: tuple[int, ...]
    gains: Floats
    allowed: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """An auxiliary variable `out` = `left` + `right`: state successor[l, r] has the total totals[successor[l, r]].

    parts: what each state of every decision below contributes to the total, so that one change can be followed directly.
    """

    out: int
    left: int
    right: int
    successor: Ints
    totals: Ints
    parts: dict[int, Ints]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Decisions come first in `states`, then the sums in an order in which each depends on earlier variables only."""

    names: tuple[tuple[str, ...], ...]  # of each decision: the axes that it sets
    sizes: tuple[tuple[int, ...], ...]  # of each decision: its candidates
    states: tuple[int, ...]  # number of states of every variable
    tables: tuple[Table, ...]
    sums: tuple[Sum, ...]
    constants: Floats  # per channel
    channels: tuple[str, ...]  # "value", "seconds", resources
    limits: Floats  # of channels 2 and up

    @property
    def decisions(self) -> int:
        return len(self.names)

    def complete(self, choices: Ints) -> Ints:
        """States of all variables [n, variables] from those of the decisions [n, decisions]."""
        full = np.zeros((len(choices), len(self.states)), dtype=np.intp)
        full[:, : self.decisions] = choices
        for s in self.sums:
            full[:, s.out] = s.successor[full[:, s.left], full[:, s.right]]
        return full

    def totals(self, choices: Ints) -> tuple[Floats, Bools]:
        """Channel totals [n, channels] of n plans, and whether each keeps the side constraints."""
        full = self.complete(choices)
        total = np.tile(self.constants, (len(choices), 1))
        allowed = np.ones(len(choices), dtype=np.bool_)
        for t in self.tables:
            index = tuple(full[:, v] for v in t.scope)
            total += t.gains[index]
            allowed &= t.allowed[index]
        return total, allowed

    def chosen(self, choice: Ints) -> dict[str, int]:
        """Size of every axis for one plan [decisions]."""
        return {n: self.sizes[d][s] for d, s in enumerate(choice.tolist()) for n in self.names[d]}


class _Builder:
    """Collects tables by scope, and sums by what they add up."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        groups = _uniform_groups(problem)
        self.names = tuple(groups)
        self.sizes = tuple(_common_sizes(problem, g) for g in groups)
        self.decision = {n: i for i, g in enumerate(groups) for n in g}
        self.states = [len(s) for s in self.sizes]
        # candidates of each axis that remain, as indices into its tables
        self.kept = {n: np.searchsorted(problem.variables[n].sizes, self.sizes[d]) for n, d in self.decision.items()}
        self.channels = ("value", "seconds", *(r.name for r in problem.resources if r.combine == "sum"))
        self.tables: dict[tuple[int, ...], Table] = {}
        self.sums: list[Sum] = []
        self.known: dict[frozenset[tuple[int, bytes]], tuple[int, Ints, dict[int, Ints]]] = {}

    def add(self, axes: Sequence[tuple[int, Ints]], table: Floats, channel: int | None, allowed: Bools) -> None:
        """Add table[axes] to a channel; an axis is a variable and the table row of each of its states."""
        scope = tuple(sorted({v for v, _ in axes}))
        index = tuple(rows.reshape([-1 if v == u else 1 for u in scope]) for v, rows in axes)
        shape = tuple(self.states[v] for v in scope)
        old = self.tables.get(scope) or Table(scope, np.zeros((*shape, len(self.channels))), np.ones(shape, dtype=np.bool_))
        gains = old.gains.copy()
        if channel is not None:
            gains[..., channel] += np.where(allowed, table, 0.0)[index]
        self.tables[scope] = Table(scope, gains, old.allowed & allowed[index])

    def factor(self, factor: AnyFactor, channel: int | None, limit: float = np.inf) -> None:
        """Add a factor to a channel (None: it only forbids what exceeds the limit)."""
        axes = [(self.decision[n], self.kept[n]) for n in (factor.variables if isinstance(factor, Factor) else factor.others)]
        table = factor.table
        if isinstance(factor, SumFactor):
            variable, totals = self.total(self._terms(factor))
            table = np.concatenate([np.zeros((1, *table.shape[1:])), table])
            axes.insert(0, (variable, np.where(totals < 0, 0, 1 + np.searchsorted(factor.widths, totals))))
        self.add(axes, table, channel, np.isfinite(table) & (table <= limit))

    def _terms(self, factor: SumFactor) -> list[tuple[int, Ints]]:
        """What each state of every input adds to the sum: its size, or so much less than nothing that a sum without a need is negative."""
        decisions = [self.decision[n] for n in factor.inputs]
        sizes = [np.array(self.sizes[d], dtype=np.intp) for d in decisions]
        nothing = -1 - sum(int(s[-1]) for s in sizes)
        added = [np.where(s == 0, nothing, s) if n in factor.needs else s for n, s in zip(factor.inputs, sizes, strict=True)]
        return list(zip(decisions, added, strict=True))

    def total(self, terms: Sequence[tuple[int, Ints]]) -> tuple[int, Ints]:
        """A variable that stands for the sum of terms (decision, contribution of each of its states), and the sum in each state."""
        parts: dict[int, Ints] = {}
        for decision, widths in terms:
            parts[decision] = parts.get(decision, 0) + widths
        wanted = {(d, w.tobytes()): (d, w) for d, w in parts.items()}
        done = max((k for k in self.known if k <= wanted.keys()), key=len, default=frozenset[tuple[int, bytes]]())
        variable, totals, below = self.known.get(done, (-1, np.zeros(0, dtype=np.intp), {}))
        for key, (decision, widths) in wanted.items():
            if key in done:
                continue
            if not done:
                variable, totals, below = decision, widths, {decision: widths}
            else:
                below = {**below, decision: widths}
                variable, totals = self.join(variable, totals, decision, widths, below)
            done = done | {key}
            self.known[done] = (variable, totals, below)
        return variable, totals

    def join(self, left: int, totals: Ints, right: int, widths: Ints, parts: dict[int, Ints]) -> tuple[int, Ints]:
        out = len(self.states)
        reached, successor = np.unique(totals[:, None] + widths[None, :], return_inverse=True)
        self.states.append(len(reached))
        self.sums.append(Sum(out, left, right, successor.reshape(len(totals), len(widths)), reached, parts))
        return out, reached

    def keep_one(self, group: tuple[str, ...]) -> None:
        members = sorted({self.decision[n] for n in group})
        variable, counts = self.total([(d, (np.array(self.sizes[d]) > 0).astype(np.intp)) for d in members])
        self.add([(variable, np.arange(len(counts)))], np.zeros(len(counts)), None, counts > 0)

    def merged(self) -> tuple[Table, ...]:
        """Tables, those whose scope lies within another's added to it: fewer and larger operations."""
        result: dict[tuple[int, ...], Table] = {}
        for scope, table in sorted(self.tables.items(), key=lambda item: (-len(item[0]), item[0])):
            host = next((s for s in result if set(scope) <= set(s)), None)
            if host is None:
                result[scope] = table
                continue
            spread = tuple(self.states[v] if v in scope else 1 for v in host)
            gains = result[host].gains + table.gains.reshape(*spread, -1)
            result[host] = Table(host, gains, result[host].allowed & table.allowed.reshape(spread))
        return tuple(result.values())


def build_model(problem: Problem) -> Model:
    """Reduce a problem. Raises OptionError where a floor or a uniform group leaves an axis no size."""
    builder = _Builder(problem)
    constants = np.zeros(len(builder.channels))
    constants[1] = problem.constant
    for name, decision in builder.decision.items():
        values = problem.variables[name].values
        builder.add([(decision, builder.kept[name])], values, 0, np.ones(len(values), dtype=np.bool_))
    for factor, channel, limit in _channel_factors(problem, builder.channels):
        builder.factor(factor, channel, limit)
    for group in problem.keep_one:
        builder.keep_one(group)
    summed = [r for r in problem.resources if r.combine == "sum"]
    constants[2:] = [r.constant for r in summed]
    limits = np.array([r.limit for r in summed], dtype=np.float64)
    states, tables, sums = tuple(builder.states), builder.merged(), tuple(builder.sums)
    return Model(builder.names, builder.sizes, states, tables, sums, constants, builder.channels, limits)


def _channel_factors(problem: Problem, channels: tuple[str, ...]) -> Iterator[tuple[AnyFactor, int | None, float]]:
    yield from ((f, 0, np.inf) for f in problem.value_factors)
    yield from ((f, 1, np.inf) for f in problem.factors)
    for resource in problem.resources:
        peak = resource.combine == "peak"
        channel = None if peak else channels.index(resource.name)
        yield from ((f, channel, resource.limit - resource.constant if peak else np.inf) for f in resource.factors)


def _uniform_groups(problem: Problem) -> list[tuple[str, ...]]:
    group_of: dict[str, tuple[str, ...]] = {n: (n,) for n in problem.variables}
    for group in problem.uniform:
        joined = tuple(dict.fromkeys(m for n in group for m in group_of[n]))
        group_of.update(dict.fromkeys(joined, joined))
    return list(dict.fromkeys(group_of.values()))


def _common_sizes(problem: Problem, group: tuple[str, ...]) -> tuple[int, ...]:
    floor = max(problem.floors.get(n, 0) for n in group)
    candidates = [problem.variables[n].sizes for n in group]
    sizes = tuple(s for s in candidates[0] if s >= floor and all(s in c for c in candidates))
    if not sizes:
        where = f"{'axis' if len(group) == 1 else 'axes'} {', '.join(group)}"
        raise OptionError(f"{where}: no common candidate of {floor} or more; lower the floor or align the candidates")
    return sizes
