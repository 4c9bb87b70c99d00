"""Exact maximisation over a factor graph by variable elimination (max-sum), for many weightings of the channels at once.

Eliminating a variable replaces the tables that touch it by their maximum over it, a message over its neighbours (bucket elimination,
Dechter 1999). A sum p = left + right is never spelled out where avoidable: eliminating any of its three variables substitutes that one
by the other two, which is a gather. Walking the steps backwards gives the maximiser, or the best total with any one state fixed.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise
from math import prod
from typing import TypeAlias

import networkx as nx
import numpy as np

from billhook.ir.errors import OptionError

from .allocation_model import Model, Sum
from .allocation_problem import Floats, Ints

_LARGEST_TABLE = 1 << 26  # entries of one message: 512 MiB in float64
_BATCH_ENTRIES = 1 << 17  # entries of the largest intermediate of a batch: about 1 MiB, the L2 cache of a core

Graph: TypeAlias = "nx.Graph[int]"


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """A table or message that a step reads: its slot, the other variables of its scope in order, the shape to broadcast it to.

    gather: for a substitution, which entry of the table each state of (left, right, others) reads.
    """

    slot: int
    others: tuple[int, ...]
    spread: tuple[int, ...]
    gather: Ints | None


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """Elimination of `variable`; the message is over `rest`. `source`, if any, gives its state from those of `given`, -1 = none."""

    variable: int
    rest: tuple[int, ...]
    inputs: tuple[_Input, ...]
    given: tuple[int, int] | None = None
    source: Ints | None = None
    barred: Floats | None = None  # 0 or -inf over `rest` (broadcast): where `source` has no state


def elimination_order(graph: Graph, states: tuple[int, ...], sums: tuple[Sum, ...]) -> list[int]:
    """Greedy order by the smallest intermediate table, then by the fewest new edges (min-fill), then by number."""
    graph = graph.copy()
    open_sums = list(sums)

    def cost(v: int) -> tuple[int, int, int]:
        around = list(graph.adj[v])
        substituted = any(v in (s.out, s.left, s.right) for s in open_sums)
        fill = sum(not graph.has_edge(a, b) for a, b in combinations(around, 2)) if len(around) <= 16 else len(around) ** 2
        return prod(states[u] for u in around) * (1 if substituted else states[v]), fill, v

    costs = {v: cost(v) for v in sorted(graph)}
    order: list[int] = []
    while costs:
        v = min(costs.values())[2]
        around = list(graph.adj[v])
        open_sums = [s for s in open_sums if v not in (s.out, s.left, s.right)]
        graph.add_edges_from(combinations(around, 2))
        graph.remove_node(v)
        del costs[v]
        order.append(v)
        for u in {w for a in around for w in (a, *graph.adj[a])}:
            costs[u] = cost(u)
    return order


class Elimination:
    """A model compiled to a sequence of steps. Raises OptionError where the axes are coupled too densely for exact elimination."""

    def __init__(self, model: Model) -> None:
        self.model = model
        graph: Graph = nx.Graph()
        graph.add_nodes_from(range(len(model.states)))
        for scope in [t.scope for t in model.tables] + [(s.out, s.left, s.right) for s in model.sums]:
            graph.add_edges_from(combinations(scope, 2))
        self.rank = {v: i for i, v in enumerate(elimination_order(graph, model.states, model.sums))}
        self.scopes: list[tuple[int, ...]] = []  # of every slot: tables first, then one message per step
        flat: list[Floats] = []
        hard: list[Floats] = []
        for t in model.tables:
            self._lay_out(t.scope, t.gains, np.where(t.allowed, 0.0, -np.inf), flat, hard)
        buckets, substituted = self._assign_sums(flat, hard)
        self.tables = len(self.scopes)
        self.steps = [self._step(v, buckets, substituted.get(v)) for v in self.rank]
        self.flat = np.concatenate(flat).T.copy()  # [channels, entries]
        self.hard = np.concatenate(hard)
        self.flat.setflags(write=False)
        ends = np.cumsum([0] + [prod(model.states[v] for v in s) for s in self.scopes[: self.tables]])
        self.spans = [slice(a, b) for a, b in pairwise(ends.tolist())]
        self.largest = max(prod(model.states[v] for v in (*s.rest, *(() if s.given else (s.variable,)))) for s in self.steps)

    def _lay_out(self, scope: tuple[int, ...], gains: Floats, hard: Floats, flats: list[Floats], hards: list[Floats]) -> None:
        """Append a table as a slot, its axes in elimination order."""
        axes = sorted(range(len(scope)), key=lambda i: self.rank[scope[i]])
        self.scopes.append(tuple(scope[i] for i in axes))
        flats.append(gains.transpose(*axes, len(scope)).reshape(-1, gains.shape[-1]))
        hards.append(hard.transpose(axes).reshape(-1))

    def _assign_sums(self, flat: list[Floats], hard: list[Floats]) -> tuple[dict[int, list[int]], dict[int, Sum]]:
        """Buckets of slots by first eliminated variable, and for each variable the sum that substitutes it; other sums become tables."""
        substituted: dict[int, Sum] = {}
        channels = len(self.model.constants)
        for s in self.model.sums:
            first = min((s.out, s.left, s.right), key=self.rank.__getitem__)
            if first not in substituted and _solved_for(s, first, self.model.states) is not None:
                substituted[first] = s
            else:
                l, r = np.indices(s.successor.shape)
                bars = np.full((self.model.states[s.out], *s.successor.shape), -np.inf)
                bars[s.successor, l, r] = 0.0
                self._lay_out((s.out, s.left, s.right), np.zeros((*bars.shape, channels)), bars, flat, hard)
        buckets: dict[int, list[int]] = {v: [] for v in self.rank}
        for slot, scope in enumerate(self.scopes):
            buckets[scope[0]].append(slot)
        return buckets, substituted

    def _step(self, v: int, buckets: dict[int, list[int]], by: Sum | None) -> _Step:
        states = self.model.states
        pair = tuple(sorted({by.out, by.left, by.right} - {v}, key=self.rank.__getitem__)) if by else ()
        around = {u for slot in buckets[v] for u in self.scopes[slot]} | set(pair)
        rest = tuple(sorted(around - {v}, key=self.rank.__getitem__))
        if prod(states[u] for u in rest) * (1 if by else states[v]) > _LARGEST_TABLE:
            names = [" = ".join(self.model.names[u]) for u in (v, *rest) if u < self.model.decisions]
            raise OptionError(f"axes {', '.join(names)} are coupled too densely for an exact allocation; give them fewer candidate sizes")
        self.scopes.append(rest)
        if rest:
            buckets[rest[0]].append(len(self.scopes) - 1)
        slots = sorted((s for s in buckets[v]), key=lambda s: len(self.scopes[s]))
        if by is None:
            spreads = [tuple(states[u] if u in self.scopes[s] else 1 for u in (v, *rest)) for s in slots]
            return _Step(v, rest, tuple(_Input(s, self.scopes[s][1:], p, None) for s, p in zip(slots, spreads, strict=True)))
        assert len(pair) == 2
        solved = _solved_for(by, v, states)
        assert solved is not None
        given, source = solved
        if given != pair:
            given, source = pair, source.T.copy()
        inputs = tuple(self._substitution(s, source, given, rest) for s in slots)
        barred = np.where(source < 0, -np.inf, 0.0).reshape([states[u] if u in given else 1 for u in rest])
        return _Step(v, rest, inputs, given, source, barred)

    def _substitution(self, slot: int, source: Ints, given: tuple[int, int], rest: tuple[int, ...]) -> _Input:
        """How a table over (v, others) is read once v is source[given]: which entry for each state of (given, others)."""
        states = self.model.states
        others = self.scopes[slot][1:]
        union = tuple(u for u in rest if u in given or u in others)
        grid = {u: np.arange(states[u]).reshape([-1 if w == u else 1 for w in union]) for u in union}
        entry = np.maximum(source, 0)[grid[given[0]], grid[given[1]]]
        for u in others:
            entry = entry * states[u] + grid[u]
        return _Input(slot, others, tuple(states[u] if u in union else 1 for u in rest), entry.reshape(-1))

    def maximise(self, weights: Floats) -> tuple[Ints, Floats]:
        """Maximisers [n, decisions] of weights @ channel totals for n weightings [n, channels], and the maxima [n].

        A maximum is -inf where the side constraints leave no plan.
        """
        chunk = max(1, _BATCH_ENTRIES // self.largest)
        parts = [self._maximise(weights[i : i + chunk]) for i in range(0, len(weights), chunk)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _maximise(self, weights: Floats) -> tuple[Ints, Floats]:
        slots, best = self._forward(weights)
        states = self.model.states
        full = np.zeros((len(weights), len(states)), dtype=np.intp)
        lines = np.arange(len(weights))
        for step in reversed(self.steps):
            if step.source is not None and step.given is not None:
                full[:, step.variable] = step.source[full[:, step.given[0]], full[:, step.given[1]]]
                continue
            score = np.zeros((len(weights), states[step.variable]))
            for i in step.inputs:
                entry = np.zeros(len(weights), dtype=np.intp)
                for u in i.others:
                    entry = entry * states[u] + full[:, u]
                score += slots[i.slot].reshape(len(weights), states[step.variable], -1)[lines, :, entry]
            full[:, step.variable] = score.argmax(axis=1)
        return full[:, : self.model.decisions], best

    def _forward(self, weights: Floats) -> tuple[list[Floats], Floats]:
        """All slots as [n, entries], and the maxima [n]."""
        entries = weights @ self.flat + self.hard
        slots = [entries[:, span] for span in self.spans]
        best = weights @ self.model.constants
        for step in self.steps:
            total = self._combined(step, slots, len(weights))
            message = total if step.source is not None else total.max(axis=1)
            slots.append(message.reshape(len(weights), -1))
            if not step.rest:
                best = best + slots[-1][:, 0]
        return slots, best

    def _combined(self, step: _Step, slots: list[Floats], count: int) -> Floats:
        """Sum of a step's inputs: over (variable, rest), or over (rest) where the variable is substituted."""
        total = np.zeros((count, *(1 for _ in step.rest))) if step.barred is None else step.barred[None]
        if step.source is None:
            total = total[:, None]
        for i in step.inputs:
            table = slots[i.slot] if i.gather is None else slots[i.slot][:, i.gather]
            total = total + table.reshape(count, *i.spread)
        if step.source is not None:
            total = np.broadcast_to(total, (count, *(self.model.states[u] for u in step.rest)))
        return total

    def marginals(self, weights: Floats) -> list[Floats]:
        """For one weighting [channels] and every decision: the maximum with that decision fixed to each of its states."""
        slots, best = self._forward(weights[None])
        states = self.model.states
        reader: dict[int, tuple[_Step, _Input]] = {i.slot: (s, i) for s in self.steps for i in s.inputs}
        beliefs: dict[int, Floats] = {}  # by variable: best total given the states that its step combines
        result = [np.zeros(0)] * self.model.decisions
        for number in range(len(self.steps) - 1, -1, -1):
            step = self.steps[number]
            slot = self.tables + number
            message = slots[slot][0]
            shape = tuple(states[u] for u in step.rest)
            outside = best.copy() if not step.rest else _projected(*reader[slot], beliefs, states)
            rest = np.where(np.isfinite(message), outside - np.where(np.isfinite(message), message, 0.0), -np.inf).reshape(shape)
            belief = self._combined(step, slots, 1)[0] + rest
            beliefs[step.variable] = belief
            if step.variable < self.model.decisions:
                result[step.variable] = _state_maxima(step, belief, states)
        return result


def _solved_for(s: Sum, v: int, states: tuple[int, ...]) -> tuple[tuple[int, int], Ints] | None:
    """The sum solved for v: (two given variables, state of v for each pair of theirs or -1); None where it is not unique."""
    if v == s.out:
        return (s.left, s.right), s.successor
    l, r = np.indices(s.successor.shape)
    other, mine, theirs = (s.right, l, r) if v == s.left else (s.left, r, l)
    source = np.full((states[s.out], states[other]), -1, dtype=np.intp)
    source[s.successor, theirs] = mine
    unique = (source >= 0).sum() == s.successor.size
    return ((s.out, other), source) if unique else None


def _projected(step: _Step, entry: _Input, beliefs: dict[int, Floats], states: tuple[int, ...]) -> Floats:
    """Best total for every entry of the table that `step` reads through `entry`."""
    belief = beliefs[step.variable]
    size = prod(states[u] for u in (step.variable, *entry.others))
    if entry.gather is None:
        drop = tuple(i for i, n in enumerate(entry.spread) if n == 1 and belief.shape[i] > 1)
        return belief.max(axis=drop).reshape(size)
    drop = tuple(i for i, n in enumerate(entry.spread) if n == 1 and belief.shape[i] > 1)
    result = np.full(size, -np.inf)
    np.maximum.at(result, entry.gather, belief.max(axis=drop).reshape(-1))
    return result


def _state_maxima(step: _Step, belief: Floats, states: tuple[int, ...]) -> Floats:
    """Best total for every state of the step's own variable."""
    if step.source is None or step.given is None:
        return belief.reshape(states[step.variable], -1).max(axis=1)
    drop = tuple(i for i, u in enumerate(step.rest) if u not in step.given)
    pairs = belief.max(axis=drop)
    result = np.full(states[step.variable], -np.inf)
    valid = step.source >= 0
    np.maximum.at(result, step.source[valid], pairs[valid])
    return result
