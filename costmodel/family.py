"""A kernel family: kernels that differ only in one to three widths. What a latency surface needs to know of the partition."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, mul
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from billhook.ir.errors import AxisError
from billhook.ir.workload import Workload

Widths: TypeAlias = tuple[int, ...]
Sizes: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A width that a kernel's shape depends on: a product of sums of axis sizes.

    factors: a single axis as a rule. One sum where the kernel reads a concatenation (an axis that occurs twice is named twice);
    heads * (query + key + value width) is (("h",), ("a", "a", "v")).
    needs: axes that take the kernel with them: where one has size 0, the width is 0.
    """

    factors: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "*".join("+".join(f) if len(self.factors) == 1 or len(f) == 1 else f"({'+'.join(f)})" for f in self.factors)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the width depends on, each once."""
        return tuple(dict.fromkeys([a for f in self.factors for a in f] + list(self.needs)))

    @property
    def axis(self) -> str | None:
        """The axis whose size is the width; None if the width follows from several sizes."""
        return self.factors[0][0] if len(self.factors) == len(self.factors[0]) == 1 and set(self.needs) <= {self.factors[0][0]} else None

    def at(self, sizes: Mapping[str, int]) -> int:
        """The width for given sizes. Raises KeyError where an axis has none."""
        return int(self.over({a: np.asarray(sizes[a]) for a in self.axes}))

    def over(self, sizes: Mapping[str, Sizes]) -> Sizes:
        """The widths for arrays of sizes that broadcast against each other."""
        sums = [reduce(add, [sizes[a] for a in f]) for f in self.factors]
        return reduce(mul, [*sums, *((sizes[a] > 0).astype(np.int64) for a in self.needs)])

    def reach(self, sizes: Mapping[str, Sequence[int]]) -> Widths:
        """Every width, ascending, that the given sizes of each axis allow (and a few that they do not, if an axis is in two factors)."""
        sums = [reduce(_added, [c * np.unique(sizes[a]) for a, c in _counts(f)]) for f in self.factors]
        widths = reduce(lambda a, b: np.unique(np.multiply.outer(a, b)), sums)
        zero = [0] if any(0 in sizes[a] for a in self.needs) else []
        return tuple(np.unique([*widths, *zero]).tolist())


def width(*axes: str) -> Coordinate:
    """The coordinate that is the size of an axis, or the sum of the sizes of several."""
    return Coordinate((axes,))


class Family(Protocol):
    """The kernels that one place of a network becomes as its axes shrink.

    coordinates: what the shape depends on. steps: for each coordinate, widths between two multiples of the step cost what the
    upper one costs (`Target.width_step` for channels, 1 where the hardware does not round, such as heads).
    """

    @property
    def coordinates(self) -> tuple[Coordinate, ...]: ...

    @property
    def steps(self) -> Widths: ...

    def workload(self, widths: Widths, /) -> Workload | None:
        """The kernel for one width per coordinate; None where it vanishes and costs nothing."""
        ...


def widths_at(coordinates: Sequence[Coordinate], sizes: Mapping[str, int]) -> Widths:
    """Width of each coordinate for given sizes of the axes."""
    try:
        return tuple(coordinate.at(sizes) for coordinate in coordinates)
    except KeyError as error:
        raise AxisError(f"axis {error.args[0]} has no size; give one for every axis that the kernels depend on") from error


def _counts(axes: Iterable[str]) -> list[tuple[str, int]]:
    listed = list(axes)
    return [(a, listed.count(a)) for a in dict.fromkeys(listed)]


def _added(totals: Sizes, more: Sizes) -> Sizes:
    return np.unique(np.add.outer(totals, more))
