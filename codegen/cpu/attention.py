"""Scaled dot-product attention with its softmax, on queries, keys and values that moves have taken out of one or more tensors.

Per sample and head, keys are transposed into a small buffer; then a few query rows at a time: their products with all keys, the softmax
in place, and the products with the values, so that the attention matrix is never written out. Causal attention stops at the last key
that these rows see, which saves nearly half. Head splits, merges, window partitions and rolls before and behind become addresses.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Arg, Ref, Workload

from . import mathfn
from .candidate import Candidate, candidate
from .moves import View, chain, split_index, views
from .reduced import is_float, storages
from .tiles import fits, vector_groups
from .vector import accumulate, bind, each, flat_kernel, load, load_partial, loop, register, sharing, splat, store, store_partial

NAME = "attention"
_HIDDEN = -1e30  # added to scores that must not count; the largest score is subtracted before exp


@dataclass(frozen=True, slots=True)
class Attention:
    """samples x heads problems of `queries` rows against `keys` rows of `depth` elements, values of `width` elements.

    query, key, value: views of shape [samples, heads, rows, elements]; mask: number of a parameter that is added to the
    scores, and its shape aligned to four dimensions; output: the kernel's output as seen from the attention's result.
    """

    samples: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    scale: float
    query: View
    key: View
    value: View
    mask: int | None
    mask_shape: tuple[int, ...]
    output: View
    causal: bool  # row i sees keys 0 to i only


def attention_of(workload: Workload) -> Attention | None:
    """The workload as moves, one attention, and moves that can be taken back; None for any other."""
    number = next((i for i, c in enumerate(workload.calls) if c.op == "aten.scaled_dot_product_attention.default"), None)
    if number is None or workload.output.block or any(not is_float(t) for t in (*workload.inputs, workload.output)):
        return None
    call, seen = workload.calls[number], views(workload, number)
    query, key, value, mask, dropout, causal = (*call.args, None, 0.0, False)[:6]
    options = dict(call.kwargs)
    if seen is None or dropout or (causal and mask is not None) or options.get("enable_gqa"):
        return None
    found = [seen.get(a.index) if isinstance(a, Ref) else None for a in (query, key, value)]
    q, k, v = found
    if q is None or k is None or v is None or any(len(x.shape) != 4 or workload.roles[x.source] != "activation" for x in (q, k, v)):
        return None
    (n, heads, queries, depth), (keys, width) = q.shape, v.shape[2:]
    if k.shape != (n, heads, keys, depth) or v.shape[:2] != (n, heads) or 0 in (*q.shape, *v.shape):
        return None
    mask_index, mask_shape = _mask_of(workload, mask, (n, heads, queries, keys))
    output = _output_of(workload, number, (n, heads, queries, width))
    if (mask is not None and mask_index is None) or output is None:
        return None
    if not all(_rows_together(view) for view in (q, k, v, output)):
        return None
    scale = options.get("scale")
    factor = float(scale) if isinstance(scale, float | int) else depth**-0.5
    return Attention(n, heads, queries, keys, depth, width, factor, q, k, v, mask_index, mask_shape, output, bool(causal))


def _mask_of(workload: Workload, mask: Arg, scores: tuple[int, ...]) -> tuple[int | None, tuple[int, ...]]:
    """Number and aligned shape of a mask that is a parameter with whole rows; (None, ()) if there is none such."""
    if not isinstance(mask, Ref) or mask.index >= len(workload.inputs) or workload.roles[mask.index] != "parameter":
        return None, ()
    given = workload.inputs[mask.index].shape
    shape = (*(1,) * (4 - len(given)), *given)
    fitting = len(shape) == 4 and all(a in (1, b) for a, b in zip(shape, scores, strict=True)) and shape[3] == scores[3]
    return (mask.index, shape) if fitting else (None, ())


def _output_of(workload: Workload, number: int, shape: tuple[int, ...]) -> View | None:
    """The output as a tensor in which the attention's rows are found: the moves behind it, taken back."""
    moves = chain(workload, number + 1, shape)
    inverse = [m.inverse() for m in reversed(moves)] if moves is not None else [None]
    taken = tuple(m for m in inverse if m is not None)
    return View(0, shape, workload.output.shape, taken) if len(taken) == len(inverse) else None


def _rows_together(view: View) -> bool:
    """Whether the last dimension of a view is contiguous in its source (tried on a few rows)."""
    last = view.shape[-1]
    corners = [[0] * (len(view.shape) - 1), [s - 1 for s in view.shape[:-1]], [s // 2 for s in view.shape[:-1]]]
    return all(view.address([*c, j]) == view.address([*c, 0]) + j for c in corners for j in (1, last // 2, last - 1) if j < last)


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """Register tiles of query rows, or () if the workload is no attention that this template makes."""
    problem = attention_of(workload)
    if problem is None:
        return ()
    found: dict[Candidate, None] = {}
    for wide in (2, 4, 3):
        limit = max(r for r in range(1, target.registers) if r == 1 or fits(r, wide, target.registers))
        rows = -(-problem.queries // -(-problem.queries // limit))
        found[candidate(NAME, rows=rows, vectors=wide)] = None
    return tuple(found)


def pack(workload: Workload, _choice: Candidate, target: Target, _index: int, array: np.ndarray) -> np.ndarray:
    """The mask with rows padded to whole vectors by what hides a score."""
    problem = attention_of(workload)
    assert problem is not None
    padded = np.full((*problem.mask_shape[:3], _whole(problem.keys, target.lanes)), _HIDDEN, np.float32)
    padded[..., : problem.keys] = np.maximum(array.reshape(problem.mask_shape), _HIDDEN)
    return padded.reshape(-1)


def _whole(size: int, lanes: int) -> int:
    return -(-size // lanes) * lanes


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    problem = attention_of(workload)
    assert problem is not None
    sizes = [given.elements for given in workload.inputs]
    if problem.mask is not None:
        sizes[problem.mask] = int(np.prod(problem.mask_shape[:3])) * _whole(problem.keys, target.lanes)

    def body(one: Any, *buffers: Any) -> None:
        _Emitter(problem, choice, target, buffers, one).emit()

    return flat_kernel([*sizes, workload.output.elements], body, opaque=problem.query.source, dtypes=storages(workload))


class _Emitter:
    """Emits the stages of one attention into the current TIR builder."""

    def __init__(self, problem: Attention, choice: Candidate, target: Target, buffers: tuple[Any, ...], one: Any) -> None:
        self.problem, self.buffers, self.one, self.lanes = problem, buffers, one, target.lanes
        work = problem.samples * problem.heads * problem.queries * problem.keys * (problem.depth + problem.width)
        self.threads = sharing(target.threads, work)
        self.rows, self.wide = choice["rows"], choice["vectors"]
        self.padded = _whole(problem.keys, self.lanes)
        self.keys: Any = None
        self.scores: Any = None

    def emit(self) -> None:
        problem = self.problem
        with each(problem.samples * problem.heads, self.threads) as both:
            n, h = split_index(both, (problem.samples, problem.heads))
            self.keys = T.alloc_buffer((problem.depth * self.padded,), "float32")
            self.scores = T.alloc_buffer((self.rows * self.padded,), "float32")
            self._transpose_keys(n, h)
            first = 0
            for rows, times in vector_groups(problem.queries, self.rows):
                with loop(0, times) as i:
                    self._block(n, h, first + i * rows, rows)
                first += rows * times

    def _transpose_keys(self, n: Any, h: Any) -> None:
        """keys[element][key], so that a vector holds one element of neighbouring keys; zero beyond the last key."""
        problem = self.problem
        with loop(0, problem.keys) as s:
            start = bind(problem.key.address([n, h, s, 0]))
            with loop(0, problem.depth) as d:
                T.buffer_store(self.keys, load(self.buffers[problem.key.source], start + d, 1), [d * self.padded + s])
        if problem.keys < self.padded:
            with loop(problem.keys, self.padded) as s, loop(0, problem.depth) as d:
                T.buffer_store(self.keys, T.float32(0.0), [d * self.padded + s])

    def _block(self, n: Any, h: Any, row: Any, rows: int) -> None:
        """`rows` queries from number `row` on."""
        problem, starts, goals, sums = self.problem, *(T.alloc_buffer((rows,), kind) for kind in ("int32", "int32", "float32"))
        with loop(0, rows) as i:  # address arithmetic once per row, in a loop: as part of the unrolled tiles it takes TVM minutes
            T.buffer_store(starts, problem.query.address([n, h, row + i, 0]), [i])
            T.buffer_store(goals, problem.output.address([n, h, row + i, 0]), [i])
        keys = bind(T.min(row + rows, problem.keys)) if problem.causal else problem.keys
        vectors = T.ceildiv(keys, self.lanes) if problem.causal else self.padded // self.lanes
        first = 0
        for wide, times in vector_groups(self.padded // self.lanes, self.wide):
            needed = T.max(0, T.min(times, T.ceildiv(vectors - first, wide))) if problem.causal else times
            with loop(0, needed) as t:
                self._score(starts, rows, (first + t * wide) * self.lanes, wide)
            first += wide * times
        with loop(0, rows) as i:
            T.buffer_store(sums, self._softmax(n, h, row + i, i, vectors), [i])
        first = 0
        vectors = -(-problem.width // self.lanes)
        for wide, times in vector_groups(vectors, self.wide):
            for t in range(times):
                self._mix((n, h, rows), keys, goals, sums, (first + t * wide) * self.lanes, wide)
            first += wide * times

    def _score(self, starts: Any, rows: int, column: Any, wide: int) -> None:
        """scores[row][column ...] = query . key."""
        data, lanes = self.buffers[self.problem.query.source], self.lanes
        tile = [[register(lanes) for _ in range(wide)] for _ in range(rows)]
        firsts = [bind(starts[i]) for i in range(rows)]
        with loop(0, self.problem.depth - 1 + self.one) as d:
            keys = [bind(load(self.keys, d * self.padded + column + j * lanes, lanes)) for j in range(wide)]
            for start, sums in zip(firsts, tile, strict=True):
                value = bind(splat(load(data, start + d, 1), lanes))
                for j in range(wide):
                    accumulate(sums[j], value * keys[j], lanes)
        for i, sums in enumerate(tile):
            for j in range(wide):
                store(self.scores, i * self.padded + column + j * lanes, load(sums[j], 0, lanes), lanes)

    def _softmax(self, n: Any, h: Any, row: Any, i: Any, vectors: Any) -> Any:
        """Exponentials of a row of scores, scaled, masked and less their largest, in place; returns one over their sum."""
        problem, lanes, base = self.problem, self.lanes, i * self.padded
        largest, total = register(lanes, splat(-3e38, lanes)), register(lanes)
        seen = T.min(row + 1, problem.keys) if problem.causal else problem.keys
        mask = None
        if problem.mask is not None:
            a, b, c, _ = problem.mask_shape
            index = (n if a > 1 else 0, h if b > 1 else 0, row if c > 1 else 0)
            mask = bind(((index[0] * b + index[1]) * c + index[2]) * self.padded)

        def scaled(v: Any, last: bool) -> None:
            x = load(self.scores, base + v * lanes, lanes) * splat(problem.scale, lanes)
            if mask is not None and problem.mask is not None:
                x = x + load(self.buffers[problem.mask], mask + v * lanes, lanes)
            elif last:
                x = T.Select(T.ramp(0, 1, lanes) < T.broadcast(seen - v * lanes, lanes), x, splat(_HIDDEN, lanes))
            x = bind(x)
            store(self.scores, base + v * lanes, x, lanes)
            store(largest, 0, T.max(load(largest, 0, lanes), x), lanes)

        if problem.causal:
            with loop(0, vectors) as v:
                scaled(v, last=True)
        else:
            if vectors > 1:
                with loop(0, vectors - 1) as v:
                    scaled(v, last=False)
            scaled(vectors - 1, last=problem.keys % lanes > 0)
        top = bind(splat(_across(largest, lanes, maximum=True), lanes))
        with loop(0, vectors) as v:
            power = mathfn.exp_quick(load(self.scores, base + v * lanes, lanes) - top, 87.0, lanes)
            store(self.scores, base + v * lanes, power, lanes)
            accumulate(total, power, lanes)
        return bind(T.float32(1.0) / _across(total, lanes, maximum=False))

    def _mix(self, at: tuple[Any, Any, int], keys: Any, goals: Any, sums: Any, column: int, wide: int) -> None:
        """output[row][column ...] = scores . values, divided by the row's sum."""
        (n, h, rows), problem, lanes = at, self.problem, self.lanes
        tile = [[register(lanes) for _ in range(wide)] for _ in range(rows)]
        counts = [min(problem.width - column - j * lanes, lanes) for j in range(wide)]
        with loop(0, keys - 1 + self.one) as s:
            start = bind(problem.value.address([n, h, s, 0]))
            source = self.buffers[problem.value.source]
            values = [bind(load_partial(source, start + column + j * lanes, counts[j], lanes)) for j in range(wide)]
            for i, parts in enumerate(tile):
                weight = bind(splat(self.scores[i * self.padded + s], lanes))
                for j in range(wide):
                    accumulate(parts[j], weight * values[j], lanes)
        for i, parts in enumerate(tile):
            goal, factor = bind(goals[i]), splat(sums[i], lanes)
            for j in range(wide):
                value = bind(load(parts[j], 0, lanes) * factor)
                store_partial(self.buffers[-1], goal + column + j * lanes, value, counts[j], lanes)


def _across(scratch: Any, lanes: int, *, maximum: bool) -> Any:
    """The largest or the sum of a register's lanes; the register is overwritten."""
    width = lanes
    while width > 1:
        width //= 2
        left, right = load(scratch, 0, width), load(scratch, width, width)
        half = T.max(left, right) if maximum else left + right
        T.buffer_store(scratch, half, [0 if width == 1 else T.ramp(0, 1, width)])
    return bind(scratch[0])
