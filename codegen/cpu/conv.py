"""Direct 2-D convolution: a block of pixels x output-channel vectors stays in registers while input channels and taps stream by.

Data is channel-blocked, or plain NCHW (first layers). Weights are packed per tile of output vectors as
[input block][row tap][column tap][input lane][vector][lane], so a tile reads them front to back. Taps in the padding are skipped, not
multiplied by zero, and the epilogue runs on the registers. In bfloat16 two neighbouring input lanes are one step (arithmetic.py), and
their weights lie side by side.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import epilogue, reduced
from .arithmetic import BFLOAT16, FLOAT32, Arithmetic
from .candidate import Candidate, candidate
from .packing import pack_parameter, padded
from .segments import Segment, segments, work
from .tiles import best_tiles, vector_groups
from .vector import balance, bind, each, flat_kernel, load, loop, register, sharing, store
from .window import Conv, conv_of

NAME = "conv"
REDUCED = NAME + BFLOAT16.name


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


def arithmetic(choice: Candidate) -> Arithmetic:
    """How the candidate's kernel multiplies."""
    return BFLOAT16 if choice.template == REDUCED else FLOAT32


def multiplications(workload: Workload, choice: Candidate) -> int:
    """Multiply-adds, in the time of float32 ones, that the kernel cannot do without: taps in the padding are skipped."""
    conv = conv_of(workload)
    assert conv is not None
    taps = work(segments(conv.rows, 1)) * work(segments(conv.columns, 1))
    depth = conv.source.channels // arithmetic(choice).group
    return conv.source.batch * taps * depth * conv.target.blocks * conv.target.block


def weight_elements(conv: Conv, group: int = 1) -> int:
    """Elements of the packed weight, `group` input channels in each."""
    return conv.target.blocks * conv.target.block * conv.source.blocks * (conv.source.block // group) * conv.taps


def input_elements(workload: Workload, index: int, conv: Conv, group: int) -> int:
    """Elements of the kernel's flat buffer for input `index`."""
    if index == conv.weight:
        return weight_elements(conv, group)
    if workload.roles[index] == "parameter":
        return padded(workload, index)
    return workload.inputs[index].elements


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    conv = conv_of(workload)
    assert conv is not None
    how = arithmetic(choice)
    sizes = [input_elements(workload, i, conv, how.group) for i in range(len(workload.inputs))] + [workload.output.elements]
    dtypes = reduced.storages(workload)
    dtypes[conv.weight] = how.weight

    def body(one: Any, *buffers: Any) -> None:
        _Emitter(workload, conv, choice, target.threads, buffers, one).emit()

    return flat_kernel(sizes, body, opaque=conv.weight, dtypes=dtypes)


def pack(workload: Workload, choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """A parameter in the order in which the kernel reads it."""
    conv = conv_of(workload)
    assert conv is not None
    if index != conv.weight:
        return pack_parameter(workload, index, array)
    lanes, block, how = conv.target.block, conv.source.block, arithmetic(choice)
    full = np.zeros((conv.target.blocks * lanes, conv.source.blocks * block, *array.shape[2:]), np.float32)
    full[: array.shape[0], : array.shape[1]] = array
    parts: list[np.ndarray] = []
    first = 0
    for wide, times in vector_groups(conv.target.blocks, choice["vectors"]):
        rows = full[first : first + wide * times * lanes]
        tiles = rows.reshape(times, wide * lanes, conv.source.blocks, block // how.group, how.group, *array.shape[2:])
        parts.append(how.packed(tiles.transpose(0, 2, 5, 6, 3, 1, 4)))
        first += wide * times * lanes
    return np.concatenate(parts)


class _Emitter:
    """Emits the loop nest of one convolution into the current TIR builder."""

    def __init__(self, workload: Workload, conv: Conv, choice: Candidate, threads: int, buffers: Sequence[Any], one: Any) -> None:
        self.workload, self.conv, self.choice, self.buffers, self.one = workload, conv, choice, buffers, one
        self.lanes, self.how = conv.target.block, arithmetic(choice)
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
        per_vector = self.lanes * self.conv.source.blocks * (self.conv.source.block // self.how.group) * self.conv.taps
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
        conv, start = self.conv, [None] * wide
        if conv.bias is not None:
            bias = self.buffers[conv.bias]
            start = [bind(load(bias, (vector + j) * self.lanes, self.lanes)) for j in range(wide)]
        tile = [[[register(self.lanes, s) for s in start] for _ in range(x.tile)] for _ in range(y.tile)]
        with loop(0, conv.source.blocks) as c:
            for r_range, y_valid in _taps(y):
                with loop(*self._valid_rows(y0, r_range)) as r:
                    for q_range, x_valid in _taps(x):
                        with self._inner(*q_range, innermost=conv.source.block == 1) as q:
                            pixels = [(i, j) for i in y_valid for j in x_valid]
                            self._multiply(tile, pixels, wide, base, (n, c, y0, r, x0, q))
        for i in range(y.tile):
            for j in range(x.tile):
                for k in range(wide):
                    self._finish(tile[i][j][k], n, vector + k, y0 + i, x0 + j)

    def _valid_rows(self, y: Any, taps: tuple[int, int]) -> tuple[Any, Any]:
        """The row taps of output row `y` that are inside the input; the given ones where tiles have several rows."""
        rows = self.conv.rows
        if self.choice["rows"] > 1:
            return taps
        first, last = rows.offset(0, 0), rows.offset(rows.out - 1, rows.window - 1)
        start = T.max(0, T.ceildiv(rows.padding - y * rows.stride, rows.dilation)) if first < 0 else 0
        if last < rows.size:
            return start, rows.window
        return start, T.min(rows.window, T.floordiv(rows.size - 1 + rows.padding - y * rows.stride, rows.dilation) + 1)

    def _inner(self, start: int, stop: int, innermost: bool) -> Any:
        """A loop; the innermost one hides its extent from LLVM, which would unroll it completely and spill the accumulators."""
        return loop(start, stop - 1 + self.one) if innermost and stop - start > 1 else loop(start, stop)

    def _multiply(self, tile: Any, pixels: Any, wide: int, base: Any, at: tuple[Any, ...]) -> None:
        """One tap of one input block: each group of input lanes, in all lanes, times the weight vectors."""
        conv, (n, c, y0, r, x0, q) = self.conv, at
        source, data, weight = conv.source, self.buffers[conv.data], self.buffers[conv.weight]
        plane = (n * source.blocks + c) * source.height
        step, steps, how = wide * self.lanes, source.block // self.how.group, self.how
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

    def _finish(self, accumulator: Any, n: Any, vector: Any, y: Any, x: Any) -> None:
        goal = self.conv.target
        element = (((n * goal.blocks + vector) * goal.height + y) * goal.width + x) * self.lanes
        place = epilogue.Place(self.lanes, element, vector * self.lanes, (n * goal.blocks + vector) * self.lanes)
        anchors = {len(self.workload.inputs): load(accumulator, 0, self.lanes)}
        store(self.buffers[-1], element, epilogue.apply(self.workload, 1, anchors, self.buffers, place), self.lanes)


def _taps(segment: Segment) -> list[tuple[tuple[int, int], list[int]]]:
    """Loops over a segment's taps with the positions that use them: one loop if all positions agree, else tap by tap."""
    if segment.uniform:
        return [((segment.used[0], segment.used[-1] + 1), list(range(segment.tile)))]
    return [((t, t + 1), [i for i, taps in enumerate(segment.taps) if t in taps]) for t in segment.used]
