"""The type of a tensor dimension: a concatenation of products of axes.

A `Dim` is a frozen tree. Its leaves are axes (named) or plain extents (unnamed). `Product` runs over its factors with
the last one fastest, as row-major flattening does; `Concat` puts its segments one after the other. So a convolution's
output is one leaf, `cat(a, b)` is `a ++ b`, a fused attention width is `heads * head_dim`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Leaf:
    """An axis (`name`), or an extent that no parameter depends on (`name` is None)."""

    name: str | None
    size: int

    def __str__(self) -> str:
        return f"{self.name}:{self.size}" if self.name else str(self.size)


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major product of at least two factors; the last factor varies fastest."""

    factors: "tuple[Dim, ...]"
    size: int

    def __str__(self) -> str:
        return "*".join(f"({f})" if isinstance(f, Concat) else str(f) for f in self.factors)


@dataclass(frozen=True, slots=True)
class Concat:
    """At least two segments, one after the other."""

    segments: "tuple[Dim, ...]"
    size: int

    def __str__(self) -> str:
        return " ++ ".join(map(str, self.segments))


BATCH = "batch"  # the name of the extent that all inputs share in front: free, and no axis

Dim: TypeAlias = Leaf | Product | Concat


def leaves(dim: Dim) -> Iterator[Leaf]:
    """All leaves in order, repeated as often as they occur."""
    if isinstance(dim, Leaf):
        yield dim
    else:
        for part in dim.factors if isinstance(dim, Product) else dim.segments:
            yield from leaves(part)


def extent(dim: Dim, sizes: Mapping[str, int]) -> int:
    """Number of indices of the dimension when the named axes have the given sizes (others keep theirs)."""
    if isinstance(dim, Leaf):
        return sizes.get(dim.name, dim.size) if dim.name else dim.size
    if isinstance(dim, Product):
        return math.prod(extent(f, sizes) for f in dim.factors)
    return sum(extent(s, sizes) for s in dim.segments)


def kept_mask(dim: Dim, masks: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Which indices of the dimension survive, given which indices of each axis survive (axes not named are whole)."""
    if isinstance(dim, Leaf):
        mask = masks.get(dim.name) if dim.name else None
        return np.ones(dim.size, dtype=np.bool_) if mask is None else mask
    if isinstance(dim, Concat):
        return np.concatenate([kept_mask(s, masks) for s in dim.segments])
    mask = np.ones(1, dtype=np.bool_)
    for factor in dim.factors:
        mask = np.logical_and.outer(mask, kept_mask(factor, masks)).reshape(-1)
    return mask


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where an axis occurs in a dimension: index i sits at offset + i * stride + every combination of the loops."""

    axis: str
    size: int
    offset: int
    stride: int
    loops: tuple[tuple[int, int], ...] = ()  # (count, stride), outermost first

    def positions(self) -> NDArray[np.int64]:
        """Flat positions, shape [axis size, repeats]."""
        rest = np.zeros(1, dtype=np.int64)
        for count, stride in self.loops:
            rest = (rest[:, None] + np.arange(count) * stride).reshape(-1)
        return self.offset + np.arange(self.size)[:, None] * self.stride + rest[None, :]


def occurrences(dim: Dim) -> list[Occurrence]:
    """Every occurrence of a named axis in the dimension, in order."""
    found: list[Occurrence] = []
    _walk(dim, 0, 1, (), found)
    return found


def _walk(dim: Dim, offset: int, stride: int, loops: tuple[tuple[int, int], ...], found: list[Occurrence]) -> None:
    if isinstance(dim, Leaf):
        if dim.name:
            found.append(Occurrence(dim.name, dim.size, offset, stride, loops))
    elif isinstance(dim, Concat):
        for segment in dim.segments:
            _walk(segment, offset, stride, loops, found)
            offset += segment.size * stride
    else:
        steps = [stride * math.prod(f.size for f in dim.factors[i + 1 :]) for i in range(len(dim.factors))]
        for i, factor in enumerate(dim.factors):
            others = tuple((f.size, s) for j, (f, s) in enumerate(zip(dim.factors, steps, strict=True)) if j != i)
            _walk(factor, offset, steps[i], loops + others, found)
