"""Depthwise 2-D convolution of bytes: a lane is a channel, and the four products of an instruction are of taps below each other.

Rows of the map are widened to 32-bit lanes and shifted together, so that a lane holds bytes of up to four rows; a column of the window is
then one instruction for 3x3, two for 5x5, and neighbouring pixels share what was put together. Taps in the padding are left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.grids import quantise_rows
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import depthwise, epilogue
from .arithmetic import INT8
from .candidate import Candidate
from .features import INT8_DOT, has_feature
from .gridded import dot
from .integer import Tables, multiplies_bytes, pack_tables, table_elements
from .packing import input_sizes, pack_parameter
from .reduced import storages
from .segments import Segment, segments
from .vector import bind, divide, each, flat_kernel, load, loop, register, sharing, store
from .window import Conv, conv_of

NAME = depthwise.NAME + INT8.name
_GROUP = INT8.group


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """A few tiles, or () if the anchor is not a depthwise convolution of bytes between maps of the same block. x86 only."""
    conv = conv_of(workload)
    if conv is None or not multiplies_bytes(workload, conv.taps) or not has_feature(target, INT8_DOT):
        return ()
    found = depthwise.candidates(workload, target)
    return tuple(Candidate(NAME, c.params) for c in found)


def _words(conv: Conv) -> int:
    """Groups of taps below each other in a column of the window."""
    return -(-conv.rows.window // _GROUP)


def _weight_elements(conv: Conv) -> int:
    return conv.source.blocks * conv.source.block * _words(conv) * conv.columns.window


def pack(workload: Workload, _choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """The weight as [channel block][row group][column tap][lane], four row taps in a word, and its tables; vectors padded."""
    conv = conv_of(workload)
    assert conv is not None
    if index != conv.weight:
        return pack_parameter(workload, index, array)
    channels = conv.source.blocks * conv.source.block
    integers, steps = quantise_rows(array)
    full = np.zeros((channels, _words(conv) * _GROUP, conv.columns.window), np.int8)
    full[: len(integers), : conv.rows.window] = integers[:, 0]
    words = full.reshape(conv.source.blocks, conv.source.block, _words(conv), _GROUP, conv.columns.window).transpose(0, 2, 4, 1, 3)
    return np.concatenate([INT8.packed(words), pack_tables(integers, steps, channels)])


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    conv = conv_of(workload)
    assert conv is not None
    channels = conv.source.blocks * conv.source.block
    weight = _weight_elements(conv) + table_elements(channels, conv.taps)
    sizes = input_sizes(workload, {conv.weight: weight})
    dtypes = storages(workload)
    dtypes[conv.weight] = INT8.weight

    def body(*buffers: Any) -> None:
        tables = Tables(buffers[conv.weight], buffers[conv.data], _weight_elements(conv), channels, conv.taps, conv.source.block)
        with each(conv.source.batch * conv.source.blocks, sharing(target.threads, conv.target.elements * conv.taps)) as both:
            n, c = divide(both, conv.source.blocks)
            for y in segments(conv.rows, choice["rows"]):
                with loop(0, y.count) as i:
                    for x in segments(conv.columns, choice["columns"]):
                        with loop(0, x.count) as j:
                            tile = _Tile(workload, conv, buffers, tables, y, x)
                            tile.emit((n, c), y.start + i * y.tile, x.start + j * x.tile)

    return flat_kernel([*sizes, workload.output.elements], body, dtypes=dtypes)


class _Tile:
    """Emits a tile of pixels of one channel block."""

    def __init__(self, workload: Workload, conv: Conv, buffers: Sequence[Any], tables: Tables, y: Segment, x: Segment) -> None:
        self.workload, self.conv, self.buffers, self.tables, self.y, self.x = workload, conv, buffers, tables, y, x
        self.lanes = conv.source.block

    def emit(self, at: tuple[Any, Any], y0: Any, x0: Any) -> None:
        (n, c), conv, y, x, lanes = at, self.conv, self.y, self.x, self.lanes
        plane = (n * conv.source.blocks + c) * conv.source.height
        starts = self._starts(c)
        sums = {(i, j): register(lanes, starts[y.taps[i], x.taps[j]], INT8.sums) for i in range(y.tile) for j in range(x.tile)}
        for group in range(_words(conv)):
            for i in range(y.tile):
                rows = [r for r in y.taps[i] if r // _GROUP == group]
                if rows:
                    self._row(
                        sums, i, group, [(r % _GROUP, plane + (y0 + i) * conv.rows.stride + conv.rows.offset(0, r)) for r in rows], c, x0
                    )
        scale = self.tables.scale(c * lanes)
        bias = None if conv.bias is None else bind(load(self.buffers[conv.bias], c * lanes, lanes))
        for (i, j), total in sums.items():
            element = (((n * conv.target.blocks + c) * conv.target.height + y0 + i) * conv.target.width + x0 + j) * lanes
            place = epilogue.Place(lanes, element, c * lanes, (n * conv.target.blocks + c) * lanes)
            anchors = {len(self.workload.inputs): self.tables.real(load(total, 0, lanes), scale, bias)}
            store(self.buffers[-1], element, epilogue.apply(self.workload, 1, anchors, self.buffers, place), lanes)

    def _starts(self, c: Any) -> dict[Any, Any]:
        """What the sums of a pixel start from, by the taps that it uses."""
        found: dict[Any, Any] = {}
        for down in dict.fromkeys(self.y.taps):
            for across in dict.fromkeys(self.x.taps):
                runs = [((r, r + 1), [(q, q + 1) for q in across]) for r in down]
                found[down, across] = self.tables.correction(runs, self.conv.columns.window, c * self.lanes)
        return found

    def _row(self, sums: Any, i: int, group: int, rows: list[tuple[int, Any]], c: Any, x0: Any) -> None:
        """A group of row taps of output row i: rows are (place in the word, input row)."""
        conv, x, columns = self.conv, self.x, self.conv.columns
        words: dict[int, Any] = {}  # by input column, counted from the tile's first
        for q in x.used:
            place = ((c * _words(conv) + group) * columns.window + q) * self.lanes
            weight = bind(load(self.buffers[conv.weight], place, self.lanes))
            for j in range(x.tile):
                if q not in x.taps[j]:
                    continue
                offset = j * columns.stride + columns.offset(0, q)
                if offset not in words:
                    words[offset] = self._word(rows, x0 * columns.stride + offset)
                total = sums[i, j]
                store(total, 0, dot(load(total, 0, self.lanes), words[offset], weight, self.lanes), self.lanes)

    def _word(self, rows: list[tuple[int, Any]], column: Any) -> Any:
        """The bytes of these rows in every lane."""
        source, data, word = self.conv.source, self.buffers[self.conv.data].bytes, None
        for place, row in rows:
            stored = data[T.ramp((row * source.width + column) * source.block, 1, self.lanes)]
            byte = T.cast(stored, f"int32x{self.lanes}")
            shifted = byte if place == 0 else T.shift_left(byte, T.broadcast(T.int32(8 * place), self.lanes))
            word = shifted if word is None else T.bitwise_or(word, shifted)
        return bind(word)
