"""A kernel family: kernels that differ only in one to three widths. What a latency surface needs to know of the partition."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from billhook.ir.errors import AxisError
from billhook.ir.workload import Workload

Widths: TypeAlias = tuple[int, ...]
Coordinate: TypeAlias = tuple[str, ...]


class Family(Protocol):
    """The kernels that one place of a network becomes as its axes shrink.

    coordinates: what the shape depends on. Each coordinate is the axes whose sizes add up to one width: a single axis as a rule,
    several where the kernel reads a concatenation (an axis that occurs twice is named twice).
    steps: for each coordinate, widths between two multiples of the step cost what the upper one costs (`Target.width_step`
    for channels, 1 where the hardware does not round, such as heads).
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
        return tuple(sum(sizes[axis] for axis in coordinate) for coordinate in coordinates)
    except KeyError as error:
        raise AxisError(f"axis {error.args[0]} has no size; give one for every axis that the kernels depend on") from error
