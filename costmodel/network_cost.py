"""The latency of a network: the surfaces of its kernels, a dispatch for each kernel that runs, and a constant."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from billhook.ir.errors import AxisError
from billhook.ir.latency import Latency
from billhook.ir.progress import Progress, no_progress

from .calibration import UNCALIBRATED, Calibration
from .emulator import CountFlops
from .family import Coordinate, Family, Widths, widths_at
from .measured import MeasuredCosts
from .surface import ANCHORS, Surface

Floats: TypeAlias = npt.NDArray[np.float64]
_SMALL_SHARE = 0.01  # of the dense network's latency: kernels that take less are known well enough from few anchors
_NO_TIME = Latency(0.0, 0.0, 0.0, "predicted")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the network: its name there, and how its shape follows the axes."""

    name: str
    family: Family


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time besides the kernels: per kernel call, and once per run of the network."""

    dispatch: Latency = _NO_TIME
    constant: Latency = _NO_TIME


@dataclass(frozen=True, slots=True, eq=False)
class CostTable:
    """Seconds [len(widths[0]), ...] of one kernel, its dispatch included; infinite where it cannot be made.

    coordinates: what is the width along each table axis, for those that can have several widths; widths that follow from several
    axes come first. Those are rounded up to the hardware's step: a width between two of them costs what the larger one costs.
    """

    name: str
    coordinates: tuple[Coordinate, ...]
    widths: tuple[Widths, ...]
    seconds: Floats


@dataclass(frozen=True, slots=True)
class CostTables:
    """What the allocation adds up: a table for each kernel that depends on a size, and the seconds of everything else."""

    tables: tuple[CostTable, ...]
    constant: float


class NetworkCost:
    """Latency of a network as a function of its axis sizes; predictions are uncalibrated unless a calibration is given.

    candidates: sizes that each axis may get, its present size included. Kernels of equal families share one surface.
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        candidates: Mapping[str, Sequence[int]],
        costs: MeasuredCosts,
        flops: CountFlops,
        overhead: Overhead = Overhead(),
    ) -> None:
        self.kernels = tuple(kernels)
        self.overhead = overhead
        self._costs = costs
        shared: dict[tuple[object, ...], Surface] = {}
        self._surface_of: list[Surface] = []
        for kernel in self.kernels:
            surface = Surface(kernel.family, coordinate_widths(kernel, candidates), costs, flops)
            self._surface_of.append(shared.setdefault(_identity(surface), surface))

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """The distinct surfaces, in the order of their first kernels."""
        return tuple(dict.fromkeys(self._surface_of))

    # ---------------------------------------------------------------- measuring

    def prepare(self, progress: Progress = no_progress, anchors: Mapping[int, int] = ANCHORS) -> None:
        """Measure what the surfaces rest on: the dense kernels, then anchors, fewer of them where a kernel takes little time.

        anchors: how many kernels to measure for a surface over so many widths that vary.
        """
        dense = {surface: (surface.largest,) for surface in self.surfaces}
        self._measure(dense, progress, "measure dense kernels")
        taken = {s: self._surface_of.count(s) * _seconds_or_inf(s) for s in self.surfaces}
        total = sum(t for t in taken.values() if t < math.inf)
        counts = {s: anchors[s.varying] if t >= _SMALL_SHARE * total else 1 + s.varying for s, t in taken.items()}
        self._measure({s: s.anchors(n) for s, n in counts.items()}, progress, "measure kernels")
        for surface, count in counts.items():
            surface.prepare(count)

    def refine(self, plans: Iterable[Mapping[str, int]], progress: Progress = no_progress) -> None:
        """Measure exactly the kernels of these plans (sizes of all axes), typically those that the solver has just chosen."""
        points: dict[Surface, tuple[Widths, ...]] = {}
        for sizes in plans:
            for kernel, surface in zip(self.kernels, self._surface_of, strict=True):
                points[surface] = (*points.get(surface, ()), widths_at(kernel.family.coordinates, sizes))
        self._measure(points, progress, "measure chosen kernels")

    def _measure(self, points: Mapping[Surface, Sequence[Widths]], progress: Progress, stage: str) -> None:
        workloads = [k for surface, widths in points.items() for w in widths if (k := surface.workload(w)) is not None]
        self._costs.cost_many(workloads, progress, stage)
        for surface, widths in points.items():
            surface.refine(widths)

    # ---------------------------------------------------------------- asking

    def breakdown(self, sizes: Mapping[str, int]) -> tuple[tuple[str, Latency], ...]:
        """(name, latency) of each kernel that runs at these sizes, without dispatch.

        Raises:
            AxisError: an axis has no size. MeasureError: one of the kernels cannot be made.
        """
        return tuple((kernel.name, latency) for kernel, _, latency in self._running(sizes))

    def predict(self, sizes: Mapping[str, int]) -> Latency:
        """Latency of the network at these sizes, not calibrated; raises like `breakdown`.

        Errors of kernels of one surface are taken as equal, those of different surfaces as independent.
        """
        running = self._running(sizes)
        below: dict[Surface, float] = {}
        above: dict[Surface, float] = {}
        for _, surface, latency in running:
            below[surface] = below.get(surface, 0.0) + latency.seconds - latency.low
            above[surface] = above.get(surface, 0.0) + latency.high - latency.seconds
        dispatch, constant = self.overhead.dispatch.scaled(len(running)), self.overhead.constant
        seconds = sum(latency.seconds for *_, latency in running) + dispatch.seconds + constant.seconds
        low = math.hypot(*below.values(), dispatch.seconds - dispatch.low, constant.seconds - constant.low)
        high = math.hypot(*above.values(), dispatch.high - dispatch.seconds, constant.high - constant.seconds)
        return Latency(seconds, max(seconds - low, 0.0), seconds + high, "predicted")

    def tables(self, grids: Mapping[str, Sequence[int]], calibration: Calibration = UNCALIBRATED, *, pad_up: bool = False) -> CostTables:
        """Calibrated tables for the allocation problem: `grids` has the sizes, ascending, that it may give to each axis.

        Kernels whose axes can have one size only go into the constant. pad_up: see `Surface.table`.
        """
        tables: list[CostTable] = []
        constant = self.overhead.constant.seconds
        for kernel, surface in zip(self.kernels, self._surface_of, strict=True):
            widths = coordinate_widths(kernel, grids)
            seconds = surface.table(widths, pad_up=pad_up) + self.overhead.dispatch.seconds * surface.runs(widths)
            if seconds.size == 1:
                constant += seconds.item()
            else:
                tables.append(composite_first(kernel, widths, seconds * calibration.scale))
        return CostTables(tuple(tables), constant * calibration.scale + calibration.offset)

    def _running(self, sizes: Mapping[str, int]) -> list[tuple[Kernel, Surface, Latency]]:
        found: list[tuple[Kernel, Surface, Latency]] = []
        for kernel, surface in zip(self.kernels, self._surface_of, strict=True):
            widths = widths_at(kernel.family.coordinates, sizes)
            if surface.workload(widths) is not None:
                found.append((kernel, surface, surface.at(widths)))
        return found


def coordinate_widths(kernel: Kernel, sizes: Mapping[str, Sequence[int]]) -> tuple[Widths, ...]:
    """The widths of each coordinate for given sizes of each axis: the sizes, or what follows from them, rounded up to the steps."""
    widths: list[Widths] = []
    for coordinate, step in zip(kernel.family.coordinates, kernel.family.steps, strict=True):
        missing = [axis for axis in coordinate.axes if not sizes.get(axis)]
        if missing:
            raise AxisError(f"axis {missing[0]} of kernel {kernel.name} has no candidate sizes; give at least its present size")
        reached = coordinate.reach(sizes)
        if coordinate.axis is None:
            reached = tuple(sorted({min(-(-w // step) * step, reached[-1]) for w in reached}))
        widths.append(reached)
    return tuple(widths)


def _identity(surface: Surface) -> tuple[object, ...]:
    """Equal for surfaces that have the same kernels everywhere: same candidates, and same kernels at the corners."""
    corners = product(*({next((w for w in c if w > 0), 0): None, c[-1]: None} for c in surface.candidates))
    return surface.candidates, surface.family.steps, tuple(surface.workload(w) for w in corners)


def _seconds_or_inf(surface: Surface) -> float:
    """Measured seconds of the largest kernel; infinite where it could not be made, 0 where it vanishes."""
    if surface.workload(surface.largest) is None:
        return 0.0
    latency = surface.measured[surface.largest].latency
    return latency.seconds if latency is not None else math.inf


def composite_first(kernel: Kernel, widths: Sequence[Widths], seconds: Floats) -> CostTable:
    """The table of a kernel over the coordinates that vary, those that follow from several axes first."""
    coordinates = kernel.family.coordinates
    varying = sorted((i for i, w in enumerate(widths) if len(w) > 1), key=lambda i: coordinates[i].axis is not None)
    fixed = [i for i, w in enumerate(widths) if len(w) == 1]
    table = seconds.transpose([*varying, *fixed]).reshape([len(widths[i]) for i in varying])
    return CostTable(kernel.name, tuple(coordinates[i] for i in varying), tuple(widths[i] for i in varying), table)
