"""From a tiled layer to the programs of the three engines."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from .accelerator import MAX_BEATS, PARAMETER_BEATS, Accelerator
from .instructions import (
    ACC_FREE,
    ACC_FULL,
    IN_FREE,
    IN_FULL,
    INPUT,
    OUT_FREE,
    OUT_FULL,
    PARAMETER,
    RESIDUAL,
    W_FREE,
    W_FULL,
    WEIGHT,
    Execute,
    Load,
    Step,
    Store,
)
from .shape import LayerShape
from .tiling import Tiling, rows_read


@dataclass(frozen=True, slots=True)
class Requantisation:
    """The numbers of a layer's store instructions; see `Store`."""

    shift: int = 16
    low: int = -128
    high: int = 127
    residual_multiplier: int = 0
    residual_shift: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """Byte addresses in memory of what a layer reads and writes."""

    source: int = 0
    weights: int = 0
    parameters: int = 0
    residual: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """One execute instruction: input blocks `first` to `last` of a tile; `start`, `end`: first or last piece of its tile."""

    block: int
    top: int
    rows: int
    first: int
    last: int
    start: bool
    end: bool
    weights: int  # tiles of weights before this piece's, from the layer's first


@dataclass(frozen=True, slots=True)
class _Runs:
    """For each piece the number of the buffer content that it reads, and whether it is the first or last to read it."""

    number: tuple[int, ...]
    opens: tuple[bool, ...]
    closes: tuple[bool, ...]


def schedule(shape: LayerShape, tiling: Tiling, accelerator: Accelerator, places: Places, numbers: Requantisation) -> tuple[Step, ...]:
    """The steps of a layer: one, or more where an engine's memory does not hold all its instructions. Pure."""
    pieces = tuple(_pieces(shape, tiling, accelerator))
    return tuple(_steps(pieces, _Writer(shape, accelerator, places, numbers)))


def weight_tiles(shape: LayerShape, accelerator: Accelerator) -> Iterator[tuple[int, int]]:
    """(output block, input block) in the order in which the weights lie in memory; each has a tile per filter tap."""
    for block in range(shape.output.blocks(accelerator.columns)):
        for inputs in shape.input_blocks(block, accelerator):
            yield block, inputs


def _pieces(shape: LayerShape, tiling: Tiling, accelerator: Accelerator) -> Iterator[_Piece]:
    taps = shape.kernel[0] * shape.kernel[1]
    before = {pair: i * taps for i, pair in enumerate(weight_tiles(shape, accelerator))}
    blocks = range(shape.output.blocks(accelerator.columns))
    tops = range(0, shape.output.height, tiling.rows)
    tiles = [(b, t) for t in tops for b in blocks] if tiling.inputs_stay else [(b, t) for b in blocks for t in tops]
    for block, top in tiles:
        inputs = shape.input_blocks(block, accelerator)
        for first in range(inputs.start, inputs.stop, tiling.blocks):
            last = min(first + tiling.blocks, inputs.stop)
            rows = min(tiling.rows, shape.output.height - top)
            yield _Piece(block, top, rows, first, last, first == inputs.start, last == inputs.stop, before[block, first])


def _steps(pieces: Sequence[_Piece], writer: "_Writer") -> Iterator[Step]:
    step = writer.step(pieces)
    tiles = [i for i, p in enumerate(pieces) if p.start]
    if len(tiles) == 1 or all(len(program) <= writer.accelerator.slots for program in step.programs):
        yield step
        return
    middle = tiles[len(tiles) // 2]
    yield from _steps(pieces[:middle], writer)
    yield from _steps(pieces[middle:], writer)


T = TypeVar("T", bound=Hashable)


def _runs(keys: Sequence[T]) -> _Runs:
    number: list[int] = []
    opens: list[bool] = []
    closes: list[bool] = []
    for n, (_, group) in enumerate(groupby(keys)):
        length = len(list(group))
        number += [n] * length
        opens += [True] + [False] * (length - 1)
        closes += [False] * (length - 1) + [True]
    return _Runs(tuple(number), tuple(opens), tuple(closes))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the instructions of consecutive pieces of one layer."""

    shape: LayerShape
    accelerator: Accelerator
    places: Places
    numbers: Requantisation

    def step(self, pieces: Sequence[_Piece]) -> Step:
        inputs = _runs([(p.top, p.rows, p.first, p.last) for p in pieces])
        weights = _runs([(p.block, p.first, p.last) for p in pieces])
        ends = [p for p in pieces if p.end]
        beside = _runs([(p.block, p.top if self.shape.residual is not None else 0) for p in ends])
        loads: list[Load] = []
        executes: list[Execute] = []
        stores: list[Store] = []
        tile = 0
        for i, piece in enumerate(pieces):
            in_buffer, w_buffer = inputs.number[i] % self.accelerator.buffers, weights.number[i] % self.accelerator.buffers
            if inputs.opens[i]:
                loads += self._inputs(piece, in_buffer)
            if weights.opens[i]:
                loads += self._weights(piece, w_buffer)
            wait = (IN_FULL,) * inputs.opens[i] + (W_FULL,) * weights.opens[i] + (ACC_FREE,) * piece.start
            signal = (IN_FREE,) * inputs.closes[i] + (W_FREE,) * weights.closes[i] + (ACC_FULL,) * piece.end
            executes.append(replace(self._execute(piece, in_buffer, w_buffer, tile % self.accelerator.buffers), wait=wait, signal=signal))
            if piece.end:
                buffer = beside.number[tile] % self.accelerator.buffers
                if beside.opens[tile]:
                    loads += self._beside(piece, buffer)
                store = self._store(piece, buffer, tile % self.accelerator.buffers)
                wait = (ACC_FULL,) + (OUT_FULL,) * beside.opens[tile]
                stores.append(replace(store, wait=wait, signal=(ACC_FREE,) + (OUT_FREE,) * beside.closes[tile]))
                tile += 1
        return Step(tuple(loads), tuple(executes), tuple(stores))

    def _inputs(self, piece: _Piece, buffer: int) -> list[Load]:
        shape, a = self.shape, self.accelerator
        height, width = shape.source.padded
        rows = rows_read(shape, piece.rows)
        top = piece.top * shape.stride[0] + shape.source.border - shape.padding[0]
        present = shape.source.blocks(a.columns)
        loads: list[Load] = []
        for i, inputs in enumerate(range(piece.first, piece.last)):
            place = buffer * a.half(a.input_depth) + i * rows * width
            for group in range(min(a.groups, present - inputs * a.groups)):
                block = inputs * a.groups + group
                address = self.places.source + (block * height + top) * width * a.columns
                loads.append(Load(INPUT, address, rows * width * a.parts, place, group))
        return _guarded(_merged(loads, a), IN_FREE, IN_FULL)

    def _weights(self, piece: _Piece, buffer: int) -> list[Load]:
        a = self.accelerator
        words = (piece.last - piece.first) * self.shape.kernel[0] * self.shape.kernel[1] * a.columns
        most = MAX_BEATS // (a.rows // a.bus)
        address = self.places.weights + piece.weights * a.columns * a.rows
        place = buffer * a.half(a.weight_depth)
        loads = [
            Load(WEIGHT, address + done * a.rows, min(most, words - done) * (a.rows // a.bus), place + done)
            for done in range(0, words, most)
        ]
        return _guarded(loads, W_FREE, W_FULL)

    def _beside(self, piece: _Piece, buffer: int) -> list[Load]:
        """What the store engine reads beside the accumulators: parameters, residual."""
        shape, a = self.shape, self.accelerator
        address = self.places.parameters + piece.block * a.parts * PARAMETER_BEATS * a.bus
        loads = [Load(PARAMETER, address, a.parts * PARAMETER_BEATS, buffer * a.parts)]
        if shape.residual is not None:
            height, width = (n + 2 * shape.residual for n in (shape.output.height, shape.output.width))
            address = self.places.residual + (piece.block * height + shape.residual + piece.top) * width * a.columns
            loads.append(Load(RESIDUAL, address, piece.rows * width * a.parts, buffer * a.half(a.residual_depth)))
        return _guarded(loads, OUT_FREE, OUT_FULL)

    def _execute(self, piece: _Piece, in_buffer: int, w_buffer: int, bank: int) -> Execute:
        shape, a = self.shape, self.accelerator
        width = shape.source.padded[1]
        pixels = piece.rows * shape.output.width
        return Execute(
            inputs=in_buffer * a.half(a.input_depth) + shape.source.border - shape.padding[1],
            weights=w_buffer * a.half(a.weight_depth),
            bank=bank,
            taps=(piece.last - piece.first, *shape.kernel),
            pitches=(rows_read(shape, piece.rows) * width, width, 1),
            size=(piece.rows, shape.output.width),
            steps=(shape.stride[0] * width, shape.stride[1]),
            period=max(pixels, a.columns + 1),
            set=piece.start,
            maximum=shape.maximum,
        )

    def _store(self, piece: _Piece, buffer: int, bank: int) -> Store:
        shape, a, n = self.shape, self.accelerator, self.numbers
        height, width = shape.output.padded
        border = shape.output.border
        rows, columns = piece.rows, shape.output.width
        residual = shape.residual or 0
        if border == 0 and residual == 0 and rows * columns * a.parts <= MAX_BEATS:
            rows, columns = 1, rows * columns  # the rows lie one behind the other
        return Store(
            bank=bank,
            address=self.places.output + ((piece.block * height + border + piece.top) * width + border) * a.columns,
            pitch=width * a.columns,
            size=(rows, columns),
            beats=columns * a.parts,
            parameters=buffer * a.parts,
            shift=n.shift,
            low=n.low,
            high=n.high,
            residual=buffer * a.half(a.residual_depth) + residual * a.parts,
            residual_pitch=(shape.output.width + 2 * residual) * a.parts,
            residual_multiplier=n.residual_multiplier,
            residual_shift=n.residual_shift,
        )


def _merged(loads: list[Load], accelerator: Accelerator) -> list[Load]:
    """Loads that go on where the one before ends, in memory and in the buffer, are one: whole maps, where a word is one block."""
    merged = loads[:1]
    for load in loads[1:]:
        last = merged[-1]
        beats = last.beats + load.beats
        ends = last.address + last.beats * accelerator.bus, last.place + last.beats // accelerator.parts
        if (load.address, load.place) == ends and load.group == last.group and beats <= MAX_BEATS:
            merged[-1] = replace(last, beats=beats)
        else:
            merged.append(load)
    return merged


def _guarded(loads: list[Load], free: int, full: int) -> list[Load]:
    """The first load waits until the buffer is free, the last says that it is full."""
    loads[0] = replace(loads[0], wait=(free,))
    loads[-1] = replace(loads[-1], signal=(full,))
    return loads
