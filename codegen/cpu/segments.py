"""How output tiles along one axis meet the padding: runs of tiles for which the same kernel taps are inside the input.

Every tile of a segment has the same size and the same valid taps, so the code of a segment needs no bounds tests, and taps that only
read zeros are left out: a 3x3 convolution of a 7x7 map does 27 % less work than its nominal count.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a window operator: input and output size, window size, stride, padding before, dilation."""

    size: int
    out: int
    window: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def offset(self, position: int, tap: int) -> int:
        """Input position that output `position` reads through `tap` (outside [0, size) in the padding)."""
        return position * self.stride + tap * self.dilation - self.padding

    def inside(self, position: int, tap: int) -> bool:
        return 0 <= self.offset(position, tap) < self.size


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` tiles of `tile` output positions from `start` on; taps[i] are the valid taps of a tile's i-th position."""

    start: int
    tile: int
    count: int
    taps: tuple[tuple[int, ...], ...]

    @property
    def used(self) -> tuple[int, ...]:
        """Taps that at least one position uses."""
        return tuple(sorted({t for taps in self.taps for t in taps}))

    @property
    def uniform(self) -> bool:
        """Whether all positions use the same, contiguous taps: then the taps are a loop."""
        return all(t == self.taps[0] for t in self.taps) and len(self.used) > 0


def segments(axis: Axis, tile: int) -> tuple[Segment, ...]:
    """Cut [0, out) into tiles of `tile` positions (the last may be shorter) and group neighbours with equal taps."""
    found: list[Segment] = []
    for start in range(0, axis.out, tile):
        size = min(tile, axis.out - start)
        taps = tuple(tuple(t for t in range(axis.window) if axis.inside(p, t)) for p in range(start, start + size))
        last = found[-1] if found else None
        if last and last.tile == size and last.taps == taps:
            found[-1] = Segment(last.start, size, last.count + 1, taps)
        else:
            found.append(Segment(start, size, 1, taps))
    return tuple(found)


def work(parts: Iterable[Segment]) -> int:
    """Number of (position, valid tap) pairs."""
    return sum(s.count * len(taps) for s in parts for taps in s.taps)
