"""Register tiles of a convolution: which (rows x columns of pixels, vectors of output channels) fit, ranked by a static estimate.

The estimate counts issue slots of a core that starts one wide (or two fine) multiply-adds and as many loads per cycle. It only has to put
good tiles first: the timer decides among the first few.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from billhook.ir.target import Target

from .segments import Axis, segments

_LATENCY = 4  # cycles of a multiply-add
_TILE_OVERHEAD = 20  # cycles to start a tile: set up loops, zero the accumulators


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of output that is kept in registers: rows x columns pixels, `vectors` vectors of channels."""

    rows: int
    columns: int
    vectors: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def fits(pixels: int, vectors: int, registers: int) -> bool:
    """Whether accumulators, weight vectors and a broadcast fit the register file (a single weight vector needs no broadcast register)."""
    if vectors == 1:
        return pixels <= registers - 4
    return pixels * vectors + vectors + 1 <= registers - 1


def _splits(size: int, limit: int) -> set[int]:
    """Tile sizes that cut `size` into nearly equal parts, at most `limit` each."""
    limit = min(size, limit)
    return {-(-size // parts) for parts in range(1, size + 1) if -(-size // parts) <= limit} | {limit}


def options(rows: Axis, columns: Axis, vectors: int, target: Target) -> Iterator[Tile]:
    """All tiles that fit the registers; several rows only where a tile covers whole rows."""
    for wide in range(1, min(vectors, 8) + 1):  # many vectors pay only where there are few pixels
        for q in _splits(columns.out, target.registers - 4):
            for r in _splits(rows.out, 7) if q == columns.out else (1,):
                if fits(r * q, wide, target.registers) and (wide <= 4 or r * q <= 3):
                    yield Tile(r, q, wide)


def estimate(tile: Tile, rows: Axis, columns: Axis, vectors: int, rate: int) -> float:
    """Cycles of all tiles per input channel, plus what starting the tiles costs (spread over 64 input channels)."""
    total = 0.0
    for wide, times in vector_groups(vectors, tile.vectors):
        for y in segments(rows, tile.rows):
            for x in segments(columns, tile.columns):
                cycles = _TILE_OVERHEAD / 64
                for r in y.used:
                    for q in x.used:
                        pixels = sum(r in t for t in y.taps) * sum(q in t for t in x.taps)
                        cycles += max(pixels * wide / rate, (pixels + wide) / rate, _LATENCY) + 0.1 * (pixels + wide) / rate
                total += cycles * y.count * x.count * times
    return total


def vector_groups(vectors: int, wide: int) -> tuple[tuple[int, int], ...]:
    """(vectors per tile, number of tiles): the full tiles, then the rest."""
    full, rest = divmod(vectors, wide)
    groups = ((wide, full), (rest, 1))
    return tuple((w, n) for w, n in groups if w and n)


def best_tiles(rows: Axis, columns: Axis, vectors: int, target: Target, lanes: int, count: int) -> tuple[Tile, ...]:
    """The `count` tiles with the lowest estimates, best first."""
    rate = max(target.lanes // lanes, 1) if target.fine_lanes <= lanes else 1
    ranked = sorted(options(rows, columns, vectors, target), key=lambda t: (estimate(t, rows, columns, vectors, rate), t.vectors))
    return tuple(ranked[:count])
