"""Where the extents of normalised values come from: symbolic references to the graph as it was captured.

Normalising and partitioning rewrite a graph at fixed sizes. Every extent and shape literal keeps such a reference beside its
number, so that the same kernels can be written down for other widths without cutting or tracing anything again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class DimOf:
    """The extent of a dimension of a captured node's result."""

    node: str
    dim: int


@dataclass(frozen=True, slots=True)
class SplitAt:
    """Where piece number `piece` of a captured split starts (for one past the last piece: where it ends)."""

    node: str
    piece: int


@dataclass(frozen=True, slots=True)
class ArgumentOf:
    """What the edit of a captured call puts at one of its arguments."""

    node: str
    place: int


Extent: TypeAlias = int | DimOf | SplitAt | ArgumentOf
Extents: TypeAlias = tuple[Extent, ...]
Path: TypeAlias = tuple[int, ...]  # a literal among positional arguments: (argument,) or (argument, place in its list)


@dataclass(frozen=True, slots=True)
class CallOrigin:
    """Where the literals of a call come from.

    captured: the captured node whose `Edit` applies to the call's arguments, or None. literals: extents that replace
    literals of the call, for calls that normalisation rewrote.
    """

    captured: str | None = None
    literals: tuple[tuple[Path, Extent], ...] = ()


def dims_meta(meta: Mapping[str, Any]) -> Extents:
    """The extents that normalisation recorded for a node."""
    dims: Extents = meta["dims"]
    return dims


def origin_meta(meta: Mapping[str, Any]) -> CallOrigin:
    """The origin of a node's literals that normalisation recorded."""
    origin: CallOrigin = meta["origin"]
    return origin
