"""Direct 2-D convolution: a block of pixels x output-channel vectors stays in registers while input channels and taps stream by.

Data is channel-blocked, or plain NCHW (first layers). Weights are packed per tile of output vectors as
[input block][row tap][column tap][input lane][vector][lane], so a tile reads them front to back. Taps in the padding are skipped, not
multiplied by zero, and the epilogue runs on the registers. In bfloat16 two, of bytes four neighbouring input lanes are one step
(arithmetic.py), and their weights lie side by side; sums of bytes become real numbers before the epilogue (integer.py).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.grids import quantise_rows
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import epilogue, reduced
from .arithmetic import BFLOAT16, FLOAT32, INT8, Arithmetic
from .candidate import Candidate, candidate
from .features import is_arm
from .integer import Tables, multiplies_bytes, pack_tables, table_elements, to_real
from .packing import input_sizes, pack_parameter
from .segments import Segment, segments, work
from .tiles import best_tiles, vector_groups
from .vector import balance, bind, each, flat_kernel, load, loop, register, sharing, store
from .window import Conv, conv_of, taps_inside

NAME = "conv"
REDUCED = NAME + BFLOAT16.name
BYTES = NAME + INT8.name


def candidates(workload: Workload, target: Target, tiles: int = 3) -> tuple[Candidate, ...]:
    """The statically best tiles, or () if the workload is not an ungrouped convolution into a blocked map."""
    conv = conv_of(workload)
    if conv is None or conv.groups != 1 or not workload.output.block or not epilogue.fusible(workload, 1):
        return ()
    best = best_tiles(conv.rows, conv.columns, conv.target.blocks, target, conv.target.block, tiles)
    outer = int(weight_elements(conv) < conv.source.elements)
    return tuple(candidate(NAME, rows=t.rows, columns=t.columns, vectors=t.vectors, pixels_outer=outer) for t in best)


def candidates_reduced(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """The same for bfloat16 data: at least two vectors where there are two, or spreading the data takes as long as multiplying."""
    conv = conv_of(workload)
    if conv is None or workload.inputs[conv.data].dtype != reduced.BFLOAT16 or conv.source.block % BFLOAT16.group:
        return ()
    found = candidates(workload, target, tiles=9)
    wide = [c for c in found if c["vectors"] > 1] or found
    return tuple(Candidate(REDUCED, c.params) for c in wide[:3])


def candidates_bytes(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """The same for data on a grid."""
    conv = conv_of(workload)
    if conv is None or conv.source.block % INT8.group or not multiplies_bytes(workload, conv.source.channels * conv.taps):
        return ()
    found = candidates(workload, target, tiles=9)
    wide = [c for c in found if c["vectors"] > 1] or found
    return tuple(Candidate(BYTES, c.params) for c in wide[:4])


def arithmetic(choice: Candidate) -> Arithmetic:
    """How the candidate's kernel multiplies."""
    return {REDUCED: BFLOAT16, BYTES: INT8}.get(choice.template, FLOAT32)


def _steps(conv: Conv, how: Arithmetic) -> int:
    """Groups of input channels in a block. Where there is one block only, bytes leave out groups that are all padding."""
    block = conv.source.block
    used = min(block, conv.source.channels) if how.exact and conv.source.blocks == 1 else block
    return -(-used // how.group)


def multiplications(workload: Workload, choice: Candidate) -> int:
    """Multiply-adds, in the time of float32 ones, that the kernel cannot do without: taps in the padding are skipped."""
    conv = conv_of(workload)
    assert conv is not None
    taps = work(segments(conv.rows, 1)) * work(segments(conv.columns, 1))
    depth = conv.source.channels // arithmetic(choice).group
    return conv.source.batch * taps * depth * conv.target.blocks * conv.target.block


def weight_elements(conv: Conv, how: Arithmetic = FLOAT32) -> int:
    """Elements of the packed weight, without tables."""
    return conv.target.blocks * conv.target.block * conv.source.blocks * _steps(conv, how) * conv.taps


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    conv = conv_of(workload)
    assert conv is not None
    how = arithmetic(choice)
    tables = table_elements(conv.target.blocks * conv.target.block, conv.taps) if how.exact else 0
    sizes = [*input_sizes(workload, {conv.weight: weight_elements(conv, how) + tables}), workload.output.elements]
    dtypes = reduced.storages(workload)
    dtypes[conv.weight] = how.weight

    def body(one: Any, *buffers: Any) -> None:
        _Emitter(workload, conv, choice, target.threads, buffers, one).emit()

    return flat_kernel(sizes, body, opaque=conv.weight, dtypes=dtypes, arm=is_arm(target))


def pack(workload: Workload, choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """A parameter in the order in which the kernel reads it."""
    conv = conv_of(workload)
    assert conv is not None
    if index != conv.weight:
        return pack_parameter(workload, index, array)
    lanes, how = conv.target.block, arithmetic(choice)
    steps = _steps(conv, how)
    tables: list[np.ndarray] = []
    if how.exact:
        array, scales = quantise_rows(array)
        tables = [pack_tables(array, scales, conv.target.blocks * lanes)]
    full = np.zeros((conv.target.blocks * lanes, conv.source.blocks * steps * how.group, *array.shape[2:]), np.float32)
    full[: array.shape[0], : array.shape[1]] = array
    parts: list[np.ndarray] = []
    first = 0
    for wide, times in vector_groups(conv.target.blocks, choice["vectors"]):
        rows = full[first : first + wide * times * lanes]
        tiles = rows.reshape(times, wide * lanes, conv.source.blocks, steps, how.group, *array.shape[2:])
        parts.append(how.packed(tiles.transpose(0, 2, 5, 6, 3, 1, 4)))
        first += wide * times * lanes
    return np.concatenate([*parts, *tables])


class _Emitter:
    """Emits the loop nest of one convolution into the current TIR builder."""

    def __init__(self, workload: Workload, conv: Conv, choice: Candidate, threads: int, buffers: Sequence[Any], one: Any) -> None:
        self.workload, self.conv, self.choice, self.buffers, self.one = workload, conv, choice, buffers, one
        self.lanes, self.how = conv.target.block, arithmetic(choice)
        self.steps = _steps(conv, self.how)
        self.tables = self._tables()
        # A tile of one row finds its valid taps at run time, so that all rows share one copy of the code.
        whole = Segment(0, 1, conv.rows.out, (tuple(range(conv.rows.window)),))
        self.rows = (whole,) if choice["rows"] == 1 else segments(conv.rows, choice["rows"])
        self.columns = segments(conv.columns, choice["columns"])
        self.threads = sharing(threads, conv.target.elements * conv.source.blocks * conv.source.block * conv.taps)
        self.by_vectors = self._vectors_spread_better()
        self.share: Any = 0  # which of the threads this is, where they share rows

    def _vectors_spread_better(self) -> bool:
        """Whether threads share tiles of output vectors; otherwise each takes a range of rows."""
        groups = vector_groups(self.conv.target.blocks, self.choice["vectors"])
        by_vectors = sum(n for _, n in groups) / sum(n / balance(n, self.threads) for _, n in groups)
        by_rows = balance(self.conv.rows.out, self.threads) if len(self.rows) == 1 and self.rows[0].tile == 1 else 0.0
        return by_vectors >= by_rows

    def emit(self) -> None:
        with loop(0, self.conv.source.batch) as n, each(1 if self.by_vectors else self.threads, self.threads) as self.share:
            if self.choice["pixels_outer"] and (self.threads == 1 or not self.by_vectors):
                for tile in self._pixels():
                    for wide in self._vectors():
                        self._tile(n, *tile, *wide)
            else:
                for wide in self._vectors():
                    for tile in self._pixels():
                        self._tile(n, *tile, *wide)

    def _vectors(self) -> Iterator[tuple[int, Any, Any]]:
        """Inside loops over tiles of output vectors: vectors per tile, first vector, where the tile's weights start."""
        first, base = 0, 0
        per_vector = self.lanes * self.conv.source.blocks * self.steps * self.conv.taps
        for wide, times in vector_groups(self.conv.target.blocks, self.choice["vectors"]):
            with each(times, self.threads if self.by_vectors else 1) as tile:
                yield wide, first + tile * wide, base + tile * (wide * per_vector)
            first += wide * times
            base += wide * times * per_vector

    def _pixels(self) -> Iterator[tuple[Segment, Any, Segment, Any]]:
        """Inside loops over tiles of pixels: row segment, first row, column segment, first column."""
        for y in self.rows:
            with self._share_of(y.count) as i:
                for x in self.columns:
                    with loop(0, x.count) as j:
                        yield y, y.start + i * y.tile, x, x.start + j * x.tile

    @contextmanager
    def _share_of(self, count: int) -> Generator[Any]:
        """A loop over all rows, or over those of this thread (from zero: TVM 0.27 garbles loops inside one with a variable start)."""
        if self.by_vectors or self.threads == 1:
            with loop(0, count) as i:
                yield i
        else:
            part = -(-count // self.threads)
            with loop(0, T.min(part, count - self.share * part)) as i:
                yield self.share * part + i

    def _tile(self, n: Any, y: Segment, y0: Any, x: Segment, x0: Any, wide: int, vector: Any, base: Any) -> None:
        conv, first = self.conv, self._starts(y, y0, x, wide, vector)
        tile = [[[register(self.lanes, s, self.how.sums) for s in first(i, j)] for j in range(x.tile)] for i in range(y.tile)]
        with loop(0, conv.source.blocks) as c:
            for r_range, y_valid in _taps(y):
                with loop(*self._valid_rows(y0, r_range)) as r:
                    for q_range, x_valid in _taps(x):
                        with self._inner(*q_range, innermost=self.steps == 1) as q:
                            pixels = [(i, j) for i in y_valid for j in x_valid]
                            self._multiply(tile, pixels, wide, base, (n, c, y0, r, x0, q))
        for group in [[k] for k in range(wide)] if self.how.exact else [range(wide)]:  # sums of bytes: few scales at a time
            real = {k: to_real(self.tables, (vector + k) * self.lanes, partial(self._bias, vector + k)) for k in group}
            for i, j, k in product(range(y.tile), range(x.tile), group):
                self._finish(real[k](load(tile[i][j][k], 0, self.lanes)), n, vector + k, y0 + i, x0 + j)

    def _tables(self) -> Tables | None:
        conv = self.conv
        if not self.how.exact:
            return None
        channels, first = conv.target.blocks * conv.target.block, weight_elements(conv, self.how)
        return Tables(self.buffers[conv.weight], self.buffers[conv.data], first, channels, conv.taps, self.lanes)

    def _bias(self, vector: Any) -> Any | None:
        bias = self.conv.bias
        return None if bias is None else bind(load(self.buffers[bias], vector * self.lanes, self.lanes))

    def _starts(self, y: Segment, y0: Any, x: Segment, wide: int, vector: Any) -> Callable[[int, int], list[Any]]:
        """What the accumulators of a pixel of the tile start from: the bias, or the correction for the taps that the pixel uses."""
        tables = self.tables
        if tables is None:
            bias = [self._bias(vector + k) for k in range(wide)]
            return lambda _i, _j: bias
        width, known = self.conv.columns.window, dict[Any, list[Any]]()

        def corrections(i: int, j: int) -> list[Any]:
            down, across = y.taps[i], x.taps[j]
            if (down, across) not in known:
                rows = self._valid_rows(y0, (down[0], down[-1] + 1)) if down else (0, 0)
                runs = [(rows, [(q, q + 1) for q in across])]
                known[down, across] = [tables.correction(runs, width, (vector + k) * self.lanes) for k in range(wide)]
            return known[down, across]

        return corrections

    def _valid_rows(self, y: Any, taps: tuple[int, int]) -> tuple[Any, Any]:
        """The row taps of output row `y` that are inside the input; the given ones where tiles have several rows."""
        return taps if self.choice["rows"] > 1 else taps_inside(self.conv.rows, y)

    def _inner(self, start: int, stop: int, innermost: bool) -> Any:
        """A loop; the innermost one hides its extent from LLVM, which would unroll it completely and spill the accumulators."""
        return loop(start, stop - 1 + self.one) if innermost and stop - start > 1 else loop(start, stop)

    def _multiply(self, tile: Any, pixels: Any, wide: int, base: Any, at: tuple[Any, ...]) -> None:
        """One tap of one input block: each group of input lanes, in all lanes, times the weight vectors."""
        conv, (n, c, y0, r, x0, q) = self.conv, at
        source, data, weight = conv.source, self.buffers[conv.data], self.buffers[conv.weight]
        plane = (n * source.blocks + c) * source.height
        step, steps, how = wide * self.lanes, self.steps, self.how
        with self._inner(0, steps, innermost=True) as b:
            tap = ((c * conv.rows.window + r) * conv.columns.window + q) * steps + b
            vectors = [bind(load(weight, base + tap * step + k * self.lanes, self.lanes)) for k in range(wide)]
            for i, j in pixels:
                row = (y0 + i) * conv.rows.stride + r * conv.rows.dilation - conv.rows.padding
                column = (x0 + j) * conv.columns.stride + q * conv.columns.dilation - conv.columns.padding
                index = ((plane + row) * source.width + column) * source.block + b * how.group
                value = bind(how.spread(data, index, self.lanes))
                for k in range(wide):
                    how.multiply_add(tile[i][j][k], value, vectors[k], self.lanes)

    def _finish(self, value: Any, n: Any, vector: Any, y: Any, x: Any) -> None:
        goal = self.conv.target
        element = (((n * goal.blocks + vector) * goal.height + y) * goal.width + x) * self.lanes
        place = epilogue.Place(self.lanes, element, vector * self.lanes, (n * goal.blocks + vector) * self.lanes)
        anchors = {len(self.workload.inputs): value}
        store(self.buffers[-1], element, epilogue.apply(self.workload, 1, anchors, self.buffers, place), self.lanes)


def _taps(segment: Segment) -> list[tuple[tuple[int, int], list[int]]]:
    """Loops over a segment's taps with the positions that use them: one loop if all positions agree, else tap by tap."""
    if segment.uniform:
        return [((segment.used[0], segment.used[-1] + 1), list(range(segment.tile)))]
    return [((t, t + 1), [i for i, taps in enumerate(segment.taps) if t in taps]) for t in segment.used]
