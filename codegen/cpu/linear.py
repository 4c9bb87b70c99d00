"""Linear layers: row-major activations [..., K] times a packed weight, with a fused epilogue.

A block of rows x output vectors stays in registers; the weight is packed per tile of vectors as [k][vector][lane],
in bfloat16 as [pair of k][vector][lane][member of the pair], bytes in fours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from billhook.ir.grids import quantise_rows
from billhook.ir.target import Target
from billhook.ir.workload import Ref, Workload

from . import epilogue, reduced
from .arithmetic import BFLOAT16, FLOAT32, INT8, Arithmetic
from .candidate import Candidate, candidate
from .features import is_arm
from .integer import Tables, multiplies_bytes, pack_tables, table_elements, to_real
from .packing import input_sizes, pack_parameter
from .tiles import fits, vector_groups
from .vector import bind, each, flat_kernel, load, loop, register, sharing, store_partial

NAME = "linear"
REDUCED = NAME + BFLOAT16.name
BYTES = NAME + INT8.name


@dataclass(frozen=True, slots=True)
class Linear:
    """rows x depth activations times a depth x width weight; input numbers of weight and bias."""

    rows: int
    depth: int
    width: int
    weight: int
    bias: int | None


def linear_of(workload: Workload) -> Linear | None:
    """The anchor as a linear layer on row-major floating-point tensors, or None."""
    call = workload.anchor
    if call.op != "aten.linear.default" or any(t.block or not reduced.is_float(t) for t in (workload.inputs[0], workload.output)):
        return None
    data, weight, bias = (*call.args, None)[:3]
    if not isinstance(data, Ref) or not isinstance(weight, Ref) or data.index != 0 or workload.roles[weight.index] != "parameter":
        return None
    width, depth = workload.inputs[weight.index].shape
    rows = workload.inputs[0].elements // depth
    return Linear(rows, depth, width, weight.index, bias.index if isinstance(bias, Ref) else None)


def candidates(workload: Workload, target: Target, count: int = 3) -> tuple[Candidate, ...]:
    """Tiles that suit the number of rows, or () if the anchor is no linear layer."""
    layer = linear_of(workload)
    if layer is None or not layer.rows or not epilogue.fusible(workload, 1):
        return ()
    vectors = -(-layer.width // target.lanes)
    wide = [w for w in (1, 2, 3, 4, 6, 8) if w <= vectors]
    found = {(_even(layer.rows, _tallest(w, target)), w) for w in wide}
    ranked = sorted(found, key=lambda t: _estimate(layer, vectors, *t))
    return tuple(candidate(NAME, rows=r, vectors=w) for r, w in ranked[:count])


def candidates_reduced(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """The same for bfloat16 data of an even number of columns: at least two vectors where there are two."""
    layer = linear_of(workload)
    if layer is None or workload.inputs[0].dtype != reduced.BFLOAT16 or layer.depth % BFLOAT16.group:
        return ()
    found = candidates(workload, target, count=6)
    wide = [c for c in found if c["vectors"] > 1] or found
    return tuple(Candidate(REDUCED, c.params) for c in wide[:3])


def candidates_bytes(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """The same for data on a grid, of a number of columns that is a multiple of four."""
    layer = linear_of(workload)
    if layer is None or layer.depth % INT8.group or not multiplies_bytes(workload, layer.depth):
        return ()
    found = candidates(workload, target, count=6)
    wide = [c for c in found if c["vectors"] > 1] or found
    return tuple(Candidate(BYTES, c.params) for c in wide[:3])


def arithmetic(choice: Candidate) -> Arithmetic:
    """How the candidate's kernel multiplies."""
    return {REDUCED: BFLOAT16, BYTES: INT8}.get(choice.template, FLOAT32)


def _tallest(wide: int, target: Target) -> int:
    return max(r for r in range(1, target.registers) if r == 1 or fits(r, wide, target.registers))


def _even(rows: int, limit: int) -> int:
    """The tile height that cuts `rows` into equal parts of at most `limit`."""
    return -(-rows // -(-rows // limit))


def _estimate(layer: Linear, vectors: int, rows: int, wide: int) -> float:
    """Issue slots per k, for all tiles."""
    tiles = -(-layer.rows // rows)
    return sum(times * tiles * (max(rows * w, 4) + 0.2 * (rows + w)) for w, times in vector_groups(vectors, wide))


def pack(workload: Workload, choice: Candidate, target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """The weight [N, K] as tiles [k][vector][lane], N padded with zeros to whole vectors; vectors padded."""
    layer = linear_of(workload)
    assert layer is not None
    if index != layer.weight:
        return pack_parameter(workload, index, array)
    lanes, how = target.lanes, arithmetic(choice)
    vectors = -(-layer.width // lanes)
    tables: list[np.ndarray] = []
    if how.exact:
        array, scales = quantise_rows(array)
        tables = [pack_tables(array, scales, vectors * lanes)]
    full = np.zeros((vectors * lanes, layer.depth), np.float32)
    full[: layer.width] = array
    parts: list[np.ndarray] = []
    first = 0
    for wide, times in vector_groups(vectors, choice["vectors"]):
        count = wide * times * lanes
        tiles = full[first : first + count].reshape(times, wide * lanes, layer.depth // how.group, how.group)
        parts.append(how.packed(tiles.transpose(0, 2, 1, 3)))
        first += count
    return np.concatenate([*parts, *tables])


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    layer = linear_of(workload)
    assert layer is not None
    vectors, how = -(-layer.width // target.lanes), arithmetic(choice)
    dtypes = reduced.storages(workload)
    dtypes[layer.weight] = how.weight
    elements = vectors * target.lanes * (layer.depth // how.group)
    tables = table_elements(vectors * target.lanes, 1) if how.exact else 0
    sizes = input_sizes(workload, {layer.weight: elements + tables})

    def body(one: Any, *buffers: Any) -> None:
        emitter = _Emitter(workload, layer, how, target.lanes, buffers, one)
        threads = sharing(target.threads, layer.rows * layer.width * layer.depth)
        first = 0
        for wide, times in vector_groups(vectors, choice["vectors"]):
            whole = times - (1 if (first + wide * times) * target.lanes > layer.width else 0)  # the last tile may be partly outside
            if whole:
                with each(whole, threads) as tile:
                    emitter.panel(choice["rows"], wide, first + tile * wide, target.lanes)
            if whole < times:
                emitter.panel(choice["rows"], wide, first + whole * wide, layer.width - (first + times * wide - 1) * target.lanes)
            first += wide * times

    return flat_kernel([*sizes, workload.output.elements], body, opaque=layer.weight, dtypes=dtypes, arm=is_arm(target))


class _Emitter:
    """Emits the tiles of a linear layer into the current TIR builder."""

    def __init__(self, workload: Workload, layer: Linear, how: Arithmetic, lanes: int, buffers: Sequence[Any], one: Any) -> None:
        self.workload, self.layer, self.how, self.lanes, self.buffers, self.one = workload, layer, how, lanes, buffers, one
        channels = -(-layer.width // lanes) * lanes
        first = channels * (layer.depth // how.group)
        self.tables = Tables(buffers[layer.weight], buffers[0], first, channels, 1, lanes) if how.exact else None

    def panel(self, rows: int, wide: int, vector: Any, last: int) -> None:
        """All rows for `wide` vectors from number `vector` on; the last of them has `last` valid lanes."""
        full, rest = divmod(self.layer.rows, rows)
        if full:
            with loop(0, full) as i:
                self._tile(rows, wide, i * rows, vector, last)
        if rest:
            self._tile(rest, wide, full * rows, vector, last)

    def _tile(self, rows: int, wide: int, row: Any, vector: Any, last: int) -> None:
        layer, how, lanes, tables = self.layer, self.how, self.lanes, self.tables
        steps = layer.depth // how.group
        data, weight = self.buffers[0], self.buffers[layer.weight]
        if tables is None:
            start = [self._bias(vector + j) for j in range(wide)]
        else:
            start = [tables.correction([((0, 1), [(0, 1)])], 1, (vector + j) * lanes) for j in range(wide)]
        sums = [[register(lanes, s, how.sums) for s in start] for _ in range(rows)]
        with loop(0, steps - 1 + self.one) as k:
            base = (vector * steps + k * wide) * lanes
            vectors = [bind(load(weight, base + j * lanes, lanes)) for j in range(wide)]
            for i in range(rows):
                value = bind(how.spread(data, (row + i) * layer.depth + k * how.group, lanes))
                for j in range(wide):
                    how.multiply_add(sums[i][j], value, vectors[j], lanes)
        reals = [to_real(tables, (vector + j) * lanes, partial(self._bias, vector + j)) for j in range(wide)]
        for i in range(rows):
            for j in range(wide):
                element = (row + i) * layer.width + (vector + j) * lanes
                place = epilogue.Place(lanes, element, (vector + j) * lanes, count=last if j == wide - 1 else 0)
                anchors = {len(self.workload.inputs): reals[j](load(sums[i][j], 0, lanes))}
                value = epilogue.apply(self.workload, 1, anchors, self.buffers, place)
                store_partial(self.buffers[-1], element, value, place.whole, lanes)

    def _bias(self, vector: Any) -> Any | None:
        bias = self.layer.bias
        return None if bias is None else bind(load(self.buffers[bias], vector * self.lanes, self.lanes))
