"""Winograd convolution F(2x2, 3x3) and F(4x4, 3x3): 3x3 convolutions of stride 1 with 2.25 or 4 times fewer multiplications.

Tiles of m x m output pixels become (m + 2)^2 independent matrix products over the input channels, on data and weights that are transformed
by small constant matrices (winograd_matrices.py); the weights are transformed when they are packed, in float64. A pass takes some rows of
tiles: it transforms their input once, then, for a group of output channels at a time, multiplies, transforms back and runs the epilogue.
Maps keep the layout of the direct template. What is lost in float32 is checked for every kernel: see samples.py.
In bfloat16 the matrix products have bfloat16 operands; the transforms stay in float32.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import epilogue, reduced
from .arithmetic import BFLOAT16, FLOAT32, Arithmetic
from .candidate import Candidate, candidate
from .packing import input_sizes, pack_parameter
from .segments import Axis, Segment, segments
from .tiles import fits, vector_groups
from .vector import balance, bind, each, flat_kernel, load, loop, register, splat, store
from .window import Conv, conv_of
from .winograd_matrices import TAPS, Step, steps, transform

NAME = "winograd"
REDUCED = NAME + BFLOAT16.name
TOLERANCE = 1e-5  # against float64, relative to the largest output; F(4x4) has 2e-6 to 5e-6, direct convolution 3e-7
_OUTPUTS = (4, 2)  # m
_DATA_BYTES = 1 << 20  # of one pass's transformed input, which every group of output channels reads again
_PRODUCT_BYTES = 256 << 10  # of one group's products, which are read back at once
_SKEW = 16  # elements between the matrices, so that their rows do not share cache sets


@dataclass(frozen=True, slots=True)
class Plan:
    """A candidate's sizes. m: outputs of a tile along each axis; rows: rows of tiles in a pass; tall x wide: tiles x vectors of output
    channels in registers; group: vectors of output channels whose products are made before they are transformed back.
    """

    m: int
    rows: int
    tall: int
    wide: int
    group: int

    @property
    def size(self) -> int:
        return self.m + TAPS - 1


def plan_of(choice: Candidate) -> Plan:
    """The sizes in a candidate of this template."""
    return Plan(**dict(choice.params))


def suits(workload: Workload) -> Conv | None:
    """The anchor as a 3x3 convolution of stride 1 between channel-blocked maps, or None."""
    conv = conv_of(workload)
    if conv is None or conv.groups != 1 or not workload.output.block or conv.source.block == 1 or not epilogue.fusible(workload, 1):
        return None
    plain = all((a.window, a.stride, a.dilation) == (TAPS, 1, 1) and a.padding < TAPS for a in (conv.rows, conv.columns))
    return conv if plain else None


def tiles(axis: Axis, m: int) -> int:
    """Tiles along one axis."""
    return -(-axis.out // m)


def candidates(workload: Workload, target: Target, counts: tuple[int, int] = (2, 1)) -> tuple[Candidate, ...]:
    """The statically best sizes, so many for each m, or () if the workload is no such convolution."""
    conv = suits(workload)
    if conv is None:
        return ()
    found: list[Candidate] = []
    for m, count in zip(_OUTPUTS, counts, strict=True):
        ranked = sorted(_plans(conv, m, target), key=lambda p: _estimate(conv, p, target))
        found += [candidate(NAME, m=p.m, rows=p.rows, tall=p.tall, wide=p.wide, group=p.group) for p in ranked[:count]]
    return tuple(found)


def candidates_reduced(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """The same with products in bfloat16, for bfloat16 data: F(2x2), whose error is 1.5 times direct convolution's; F(4x4) has 4 times."""
    conv = suits(workload)
    if conv is None or workload.inputs[conv.data].dtype != reduced.BFLOAT16 or conv.source.block % BFLOAT16.group:
        return ()
    return tuple(Candidate(REDUCED, c.params) for c in candidates(workload, target, counts=(0, 2)))


def arithmetic(choice: Candidate) -> Arithmetic:
    """How the candidate's kernel multiplies."""
    return BFLOAT16 if choice.template == REDUCED else FLOAT32


def _plans(conv: Conv, m: int, target: Target) -> Iterator[Plan]:
    lanes, vectors, products = conv.target.block, conv.target.blocks, (m + TAPS - 1) ** 2
    across, down = tiles(conv.columns, m), tiles(conv.rows, m)
    for rows in _pass_rows(down, across, 4 * products * conv.source.blocks * conv.source.block, target.threads):
        for wide in (w for w in (1, 2, 3, 4) if w <= max(vectors // target.threads, 1)):
            limit = max(t for t in range(1, target.registers) if t == 1 or fits(t, wide, target.registers))
            count = rows * across
            tall = -(-count // -(-count // limit))
            most = max(_PRODUCT_BYTES // (4 * products * count * lanes * wide), 1)
            share = vectors // target.threads // wide  # every thread has groups of its own
            yield Plan(m, rows, tall, wide, wide * max(min(most, share, 64 // (wide * lanes)), 1))


def _pass_rows(down: int, across: int, bytes_per_tile: int, threads: int) -> set[int]:
    """Rows of tiles that a pass may take: about 28 tiles, or as many as fit the cache; so few that threads can share the passes."""
    fitting = max(_DATA_BYTES // (bytes_per_tile * across), 1)
    shared = down // (2 * threads)
    if threads > 1 and down % threads == 0 and shared * across >= 14:
        fitting = min(fitting, shared)
    wanted = {max(min(down, fitting, round(n / across)), 1) for n in (28, 56)}
    return {-(-down // -(-down // rows)) for rows in wanted}


def _estimate(conv: Conv, plan: Plan, target: Target) -> float:
    """Cycles: issue slots of the products, and of weights and transforms that come from the cache."""
    lanes, vectors = conv.target.block, conv.target.blocks
    rate = max(target.lanes // lanes, 1) if target.fine_lanes <= lanes else 1
    depth, products = conv.source.blocks * conv.source.block, plan.size**2
    down, across = tiles(conv.rows, plan.m), tiles(conv.columns, plan.m)
    total = 0.0
    for rows, passes in vector_groups(down, plan.rows):
        for wide, panels in vector_groups(vectors, plan.wide):
            for tall, count in vector_groups(rows * across, plan.tall):
                slots = max(tall * wide / rate, (tall + wide) / rate, 4.0) + 0.1 * (tall + wide) / rate
                total += passes * panels * count * products * (slots * depth + 30 + 4 * tall * wide)
        total += passes * vectors * products * depth * lanes / 8  # weights come from memory or the last cache
    total += 3.0 * products * down * across * depth / conv.source.block
    return total / balance(-(-vectors // plan.group), target.threads)


def multiplications(workload: Workload, choice: Candidate) -> int:
    """Multiply-adds of the matrix products, in the time of float32 ones; the transforms come on top."""
    conv, plan = suits(workload), plan_of(choice)
    assert conv is not None
    count = conv.source.batch * tiles(conv.rows, plan.m) * tiles(conv.columns, plan.m) * plan.size**2
    return count * conv.source.blocks * (conv.source.block // arithmetic(choice).group) * conv.target.blocks * conv.target.block


def pack(workload: Workload, choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """The transformed weight as [group][product][panel of vectors][input channel][vector][lane]; other parameters as usual."""
    conv, plan = suits(workload), plan_of(choice)
    assert conv is not None
    if index != conv.weight:
        return pack_parameter(workload, index, array)
    lanes, depth, how = conv.target.block, conv.source.blocks * conv.source.block, arithmetic(choice)
    matrix = transform(plan.m).weight
    products = np.einsum("iy,kcyx,jx->ijck", matrix, array.astype(np.float64), matrix, optimize=True)
    full = np.zeros((plan.size**2, depth, conv.target.blocks * lanes), np.float32)
    full[:, : array.shape[1], : array.shape[0]] = products.reshape(plan.size**2, array.shape[1], array.shape[0])
    parts: list[np.ndarray] = []
    for first, count in _group_spans(conv.target.blocks, plan.group):
        panels: list[np.ndarray] = []
        for wide, times in vector_groups(count, plan.wide):
            begin, width = first * lanes, wide * lanes
            block = full[:, :, begin : begin + times * width].reshape(plan.size**2, depth // how.group, how.group, times, width)
            panels.append(how.packed(block.transpose(0, 3, 1, 4, 2)).reshape(plan.size**2, -1))
            first += wide * times
        parts.append(np.concatenate(panels, axis=1).reshape(-1))
    return np.concatenate(parts)


def _group_spans(vectors: int, group: int) -> list[tuple[int, int]]:
    """(first vector, number of vectors) of every group."""
    return [(first, min(group, vectors - first)) for first in range(0, vectors, group)]


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    conv, plan = suits(workload), plan_of(choice)
    assert conv is not None
    how, dtypes = arithmetic(choice), reduced.storages(workload)
    dtypes[conv.weight] = how.weight
    weight = plan.size**2 * conv.source.blocks * (conv.source.block // how.group) * conv.target.blocks * conv.target.block
    sizes = input_sizes(workload, {conv.weight: weight})

    def body(one: Any, *buffers: Any) -> None:
        _Emitter(workload, conv, plan, how, target.threads, buffers, one).emit()

    return flat_kernel([*sizes, workload.output.elements], body, opaque=conv.weight, dtypes=dtypes)


class _Emitter:
    """Emits the stages of one Winograd convolution into the current TIR builder."""

    def __init__(
        self, workload: Workload, conv: Conv, plan: Plan, how: Arithmetic, threads: int, buffers: tuple[Any, ...], one: Any
    ) -> None:
        self.workload, self.conv, self.plan, self.how, self.threads, self.buffers, self.one = (
            workload,
            conv,
            plan,
            how,
            threads,
            buffers,
            one,
        )
        self.matrices = transform(plan.m)
        self.lanes, self.depth = conv.target.block, conv.source.blocks * conv.source.block
        self.down, self.across = tiles(conv.rows, plan.m), tiles(conv.columns, plan.m)
        self.pitch = plan.rows * self.across * self.depth + _SKEW  # from one product's data to the next
        self.step = plan.rows * self.across * plan.group * self.lanes + _SKEW  # from one product's results to the next
        self.data: Any = None

    def emit(self) -> None:
        """Threads share the rows of tiles where there are many passes: they meet once. Else they share the stages of each pass."""
        by_rows = self.down % self.threads == 0 and self.down // self.plan.rows >= 2 * self.threads
        parts = self.threads if by_rows else 1
        if by_rows:
            self.threads = 1
        with loop(0, self.conv.source.batch) as n, each(parts, parts) as part:
            self.data = T.alloc_buffer((self.plan.size**2 * self.pitch,), "float32" if self.how.group == 1 else "uint16")
            first = 0
            for rows, times in vector_groups(self.down // parts, self.plan.rows):
                with loop(0, times) as p:
                    row = part * (self.down // parts) + first + p * rows
                    self._transform_input(n, row, rows)
                    self._groups(n, row, rows)
                first += rows * times

    def _groups(self, n: Any, row: Any, rows: int) -> None:
        """All output channels of a pass, group by group."""
        first = 0
        for count, times in vector_groups(self.conv.target.blocks, self.plan.group):
            with each(times, self.threads) as g:
                results = T.alloc_buffer((self.plan.size**2 * self.step,), "float32")
                vector = first + g * count
                self._multiply(results, vector, count, rows * self.across)
                with loop(0, count) as k:
                    self._transform_output(results, n, row, rows, (vector + k, k))
            first += count * times

    def _transform_input(self, n: Any, row: Any, rows: int) -> None:
        """data[product][input block][tile][lane]: columns of each row of tiles first, into a strip that stays in the nearest cache."""
        source, plan, lanes = self.conv.source, self.plan, self.conv.source.block
        left, width = self.conv.columns.padding, self.across * plan.m + TAPS - 1
        edges = [x for x in range(width) if not 0 <= x - left < source.width]
        inside = [x for x in range(width) if x not in edges]
        with each(source.blocks, self.threads) as c:
            strip = T.alloc_buffer((plan.size * width * lanes,), "float32")
            for i, x in product(range(plan.size), edges):
                store(strip, (i * width + x) * lanes, splat(0.0, lanes), lanes)
            with loop(0, rows) as y:
                for part, guard in self._input_rows():
                    with guard(row + y), loop(0, len(inside)) as x:
                        self._column(strip, width, (n, c, row + y, inside[0] + x), part)
                with loop(0, plan.size) as i, loop(0, self.across) as x:
                    values = [bind(load(strip, (i * width + x * plan.m + j) * lanes, lanes)) for j in range(plan.size)]
                    place = (c * (rows * self.across) + y * self.across + x) * lanes
                    for j, value in self._product(steps(self.matrices.data, [True] * plan.size), values, lanes):
                        store(self.data, (i * plan.size + j) * self.pitch + place, value, lanes)

    def _input_rows(self) -> list[tuple[Segment, Any]]:
        """Runs of tile rows that read the same valid input rows, each with a guard that runs its code for these rows only."""
        rows = Axis(self.conv.source.height, self.down, self.plan.size, self.plan.m, self.conv.rows.padding)
        parts = segments(rows, 1)
        return [(p, _guard(p.start, p.start + p.count, self.down)) for p in parts]

    def _column(self, strip: Any, width: int, at: tuple[Any, Any, Any, Any], part: Segment) -> None:
        """One column of a row of tiles, transformed along the rows."""
        (n, c, row, x), source, lanes = at, self.conv.source, self.conv.source.block
        plane, top = (n * source.blocks + c) * source.height, row * self.plan.m - self.conv.rows.padding
        column = x - self.conv.columns.padding
        values = [
            bind(load(self.buffers[self.conv.data], ((plane + top + i) * source.width + column) * lanes, lanes)) if i in part.used else None
            for i in range(self.plan.size)
        ]
        for i, value in self._product(steps(self.matrices.data, [v is not None for v in values]), values, lanes):
            store(strip, (i * width + x) * lanes, value, lanes)

    def _multiply(self, results: Any, vector: Any, count: int, tile_count: int) -> None:
        """results[product][vector][tile][lane] of one group of output channels: small matrix products, one after the other."""
        weight, per_vector = self.buffers[self.conv.weight], self.depth // self.how.group * self.lanes
        base = vector * (self.plan.size**2 * per_vector)
        with loop(0, self.plan.size**2) as a:
            first = 0
            for wide, panels in vector_groups(count, self.plan.wide):
                with loop(0, panels) as panel:
                    k = first + panel * wide
                    start = base + (a * count + k) * per_vector
                    done = 0
                    for tall, times in vector_groups(tile_count, self.plan.tall):
                        with loop(0, times) as t:
                            self._tile(weight, start, results, (a, k, done + t * tall), (tall, wide, tile_count))
                        done += tall * times
                first += wide * panels

    def _tile(self, weight: Any, start: Any, results: Any, at: tuple[Any, Any, Any], sizes: tuple[int, int, int]) -> None:
        (a, k, tile), (tall, wide, tile_count), lanes, how, block = at, sizes, self.lanes, self.how, self.conv.source.block
        groups = block // how.group
        sums = [[register(lanes) for _ in range(wide)] for _ in range(tall)]
        with loop(0, self.conv.source.blocks) as c, loop(0, groups - 1 + self.one) as b:
            vectors = [bind(load(weight, start + ((c * groups + b) * wide + j) * lanes, lanes)) for j in range(wide)]
            for i in range(tall):
                index = a * self.pitch + (c * tile_count + tile + i) * block + b * how.group
                value = bind(how.spread(self.data, index, lanes))
                for j in range(wide):
                    how.multiply_add(sums[i][j], value, vectors[j], lanes)
        for i, j in product(range(tall), range(wide)):
            store(results, a * self.step + ((k + j) * tile_count + tile + i) * lanes, load(sums[i][j], 0, lanes), lanes)

    def _transform_output(self, results: Any, n: Any, row: Any, rows: int, vectors: tuple[Any, Any]) -> None:
        """All pixels of one output vector in this pass: the tiles inside the map, then those that hang over its edges."""
        m, tile_count = self.plan.m, rows * self.across
        full_rows, full_columns = self.conv.rows.out // m, self.conv.columns.out // m
        with loop(0, rows) as y:
            for start, stop, tall in ((0, full_rows, m), (full_rows, self.down, self.conv.rows.out % m)):
                if start == stop:
                    continue
                with _guard(start, stop, self.down)(row + y):
                    for left, right, wide in ((0, full_columns, m), (full_columns, self.across, self.conv.columns.out % m)):
                        if left < right:
                            with loop(left, right) as x:
                                where = vectors[1] * tile_count + y * self.across + x
                                self._pixels(results, where, (n, vectors[0], (row + y) * m, x * m), (tall, wide))

    def _pixels(self, results: Any, where: Any, at: tuple[Any, Any, Any, Any], inside: tuple[int, int]) -> None:
        """One tile, of which `inside` rows and columns of pixels are inside the map."""
        (n, vector, top, left), lanes, size, goal = at, self.lanes, self.plan.size, self.conv.target
        halves: list[dict[int, Any]] = []
        matrix = self.matrices.output
        for j in range(size):
            values = [bind(load(results, (i * size + j) * self.step + where * lanes, lanes)) for i in range(size)]
            halves.append(dict(self._product(steps(matrix[: inside[0]], [True] * size), values, lanes)))
        bias = None if self.conv.bias is None else bind(load(self.buffers[self.conv.bias], vector * lanes, lanes))
        for i in range(inside[0]):
            for j, value in self._product(steps(matrix[: inside[1]], [True] * size), [h[i] for h in halves], lanes):
                element = (((n * goal.blocks + vector) * goal.height + top + i) * goal.width + left + j) * lanes
                place = epilogue.Place(lanes, element, vector * lanes, (n * goal.blocks + vector) * lanes)
                anchor = {len(self.workload.inputs): value if bias is None else bind(value + bias)}
                store(self.buffers[-1], element, epilogue.apply(self.workload, 1, anchor, self.buffers, place), lanes)

    def _product(self, rows: tuple[Step, ...], values: list[Any], lanes: int) -> Iterator[tuple[int, Any]]:
        """(row, vector) of a constant matrix times vectors."""
        for step in rows:
            first = _sum(step.first, values, lanes)
            if step.second is None:
                yield step.rows[0], first
            else:
                second = _sum(step.second, values, lanes)
                yield step.rows[0], bind(first + second)
                yield step.rows[1], bind(first - second)


def _sum(terms: tuple[tuple[int, float], ...], values: list[Any], lanes: int) -> Any:
    total: Any = None
    for i, coefficient in terms:
        part = values[i] if coefficient == 1.0 else values[i] * splat(coefficient, lanes)
        total = part if total is None else total - values[i] if coefficient == -1.0 else total + part
    return splat(0.0, lanes) if total is None else bind(total)


def _guard(start: int, stop: int, count: int) -> Any:
    """A context that runs its code if a row number is in [start, stop), without a test where that is certain."""

    @contextmanager
    def guard(row: Any) -> Generator[None]:
        if (start, stop) == (0, count):
            yield
        else:
            with T.If(T.And(row >= start, row < stop)), T.Then():
                yield

    return guard
