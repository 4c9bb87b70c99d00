"""The latency of a kernel family as a function of its widths: a few kernels are measured, the others follow from them.

Widths are first rounded up to the hardware's steps: that staircase is known, not learned. Over the rounded widths an `Emulator` is
fitted to the measured kernels. Kernels that were measured keep exactly their measured latency.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from billhook.ir.errors import MeasureError, OptionError
from billhook.ir.latency import Latency
from billhook.ir.progress import Progress, no_progress
from billhook.ir.workload import Workload

from .emulator import CountFlops, Emulator, Kernels, describe, emulate
from .family import Family, Widths
from .kriging import design
from .measured import MeasuredCosts
from .sample import Sample

Floats: TypeAlias = npt.NDArray[np.float64]
ANCHORS: Mapping[int, int] = MappingProxyType({0: 1, 1: 4, 2: 6, 3: 10})


@dataclass(frozen=True, slots=True)
class Padding:
    """The kernel for `widths` is slower than the larger one for `to`, by `saving` seconds."""

    widths: Widths
    to: Widths
    saving: float


class Surface:
    """Latencies of a family for widths among candidates; it measures what it needs when it is first asked, or in `prepare`.

    candidates: for each coordinate, the widths that can be asked for. A width is rounded up to a multiple of the coordinate's
    step, but not above the largest candidate.
    """

    def __init__(self, family: Family, candidates: Sequence[Sequence[int]], costs: MeasuredCosts, flops: CountFlops) -> None:
        if len(candidates) != len(family.coordinates) or not all(candidates):
            raise OptionError(f"a surface over {family.coordinates} needs candidate widths for each coordinate, got {candidates}")
        self.family = family
        self.candidates = tuple(tuple(sorted(set(c))) for c in candidates)
        self.varying = sum(len(c) > 1 for c in self.candidates)
        if self.varying > max(ANCHORS):
            raise OptionError(f"a surface has up to {max(ANCHORS)} widths, not {family.coordinates}; keep some of their axes at one size")
        self._costs = costs
        self._flops = flops
        self._workloads: dict[Widths, Workload | None] = {}
        self._anchors: dict[int, tuple[Widths, ...]] = {}
        self._grids: dict[tuple[Widths, ...], _Grid] = {}
        self._samples: dict[Widths, Sample] = {}
        self._prepared = False
        self._emulator: Emulator | None = None

    # ---------------------------------------------------------------- which kernels

    def workload(self, widths: Widths) -> Workload | None:
        """The family's kernel, or None where it vanishes."""
        if widths not in self._workloads:
            self._workloads[widths] = self.family.workload(widths)
        return self._workloads[widths]

    def rounded(self, widths: Widths) -> Widths:
        """The widths whose kernel costs the same: the next multiples of the steps."""
        return tuple(map(_round_up, widths, self.family.steps, self.candidates))

    @property
    def largest(self) -> Widths:
        """The largest candidate widths."""
        return tuple(c[-1] for c in self.candidates)

    def anchors(self, count: int | None = None) -> tuple[Widths, ...]:
        """The widths to measure first: the largest, the smallest, then those of which least is known from the others (`design`).

        count: how many; by default `ANCHORS` for the number of coordinates that vary. Kernels that take long count more, because the
        solver adds seconds up.
        """
        wanted = ANCHORS[self.varying] if count is None else count
        if wanted not in self._anchors:
            self._anchors[wanted] = self._choose_anchors(wanted)
        return self._anchors[wanted]

    def _choose_anchors(self, count: int) -> tuple[Widths, ...]:
        axes = [_thinned({_round_up(w, step, c) for w in c}) for step, c in zip(self.family.steps, self.candidates, strict=True)]
        grid = [w for w in product(*axes) if self.workload(w) is not None]
        if not grid:
            return ()
        extremes = [len(grid) - 1, 0] if len(grid) > 1 else [0]  # the grid ascends along every coordinate
        kernels = self._describe(grid)
        return tuple(grid[i] for i in design(kernels.points, kernels.importance, extremes, count))

    # ---------------------------------------------------------------- measuring

    def prepare(self, count: int | None = None, progress: Progress = no_progress) -> None:
        """Measure the anchors that have not been measured."""
        self.refine(self.anchors(count), progress)
        self._prepared = True

    def refine(self, points: Iterable[Widths], progress: Progress = no_progress) -> None:
        """Measure exactly these kernels: there the surface becomes exact, and nearby it follows by the same ratio.

        A kernel that cannot be measured is kept as such: `at` raises for it, and `table` forbids it.
        """
        new = {w: k for w in points if w not in self._samples and (k := self.workload(w)) is not None}
        if new:
            taken = {s.workload: s for s in self._costs.cost_many(new.values(), progress)}
            self._samples.update({w: taken[k] for w, k in new.items()})
            self._emulator = None

    @property
    def measured(self) -> Mapping[Widths, Sample]:
        """The samples that the surface rests on."""
        return MappingProxyType(self._samples)

    # ---------------------------------------------------------------- asking

    def at(self, widths: Widths) -> Latency:
        """Latency at these widths: as measured where they were measured, otherwise "predicted" with a 95% interval.

        Raises:
            MeasureError: the kernel could not be built or timed, or no kernel of the family could.
        """
        sample = self._samples.get(widths)
        if sample is not None and sample.latency is not None:
            return sample.latency
        seconds, low, high = (float(bound[0]) for bound in self._bounds(self._lay_out([widths])))
        if math.isinf(seconds):
            failed = self._samples.get(widths) or self._samples[self.rounded(widths)]
            raise MeasureError(f"kernel {failed.workload} has no latency: {failed.failure}")
        return Latency(seconds, low, high, "predicted")

    def runs(self, grids: Sequence[Sequence[int]]) -> npt.NDArray[np.bool_]:
        """Where over a grid of widths there is a kernel [len(grids[0]), ...]."""
        return (self._grid(grids).slots >= 0).reshape([len(g) for g in grids])

    def table(self, grids: Sequence[Sequence[int]], *, pad_up: bool = False) -> Floats:
        """Seconds [len(grids[0]), ...] over a grid of widths; infinite where the kernel cannot be made, 0 where it vanishes.

        pad_up: take the latency of a larger kernel within the next step where that is certainly faster (see `paddings`);
        only for builds that do run the larger kernel there.

        Raises:
            MeasureError: no kernel of the family could be built or timed.
        """
        grid = self._grid(grids)
        seconds, _, _ = self._bounds(grid)
        if pad_up:
            for padding in self.paddings(grids):
                seconds[grid.index[padding.widths]] -= padding.saving
        return seconds.reshape([len(g) for g in grids])

    def paddings(self, grids: Sequence[Sequence[int]]) -> tuple[Padding, ...]:
        """Where a kernel one step larger is faster, beyond the uncertainty of both; the fastest such kernel for each point."""
        points = [w for w in product(*grids) if self.workload(w) is not None]
        larger = {w: self._larger(w) for w in points}
        everything = list(dict.fromkeys([*points, *(x for near in larger.values() for x in near)]))
        bounds = {w: b for w, *b in zip(everything, *self._bounds(self._lay_out(everything)), strict=True)}
        found: list[Padding] = []
        for widths in points:
            to = min(larger[widths], key=lambda w: bounds[w][0], default=widths)
            if bounds[to][2] < bounds[widths][1] < math.inf:
                found.append(Padding(widths, to, float(bounds[widths][0] - bounds[to][0])))
        return tuple(found)

    def _larger(self, widths: Widths) -> list[Widths]:
        """The kernels that are one step larger along some of the coordinates."""
        here = self.rounded(widths)
        next_up = self.rounded(tuple(min(w + 1, c[-1]) for w, c in zip(here, self.candidates, strict=True)))
        return [w for w in product(*map(lambda a, b: (a, b) if a != b else (a,), here, next_up)) if w != here]

    # ---------------------------------------------------------------- the numbers

    def _grid(self, grids: Sequence[Sequence[int]]) -> "_Grid":
        key = tuple(map(tuple, grids))
        if key not in self._grids:
            self._grids[key] = self._lay_out(list(product(*key)))
        return self._grids[key]

    def _lay_out(self, points: Sequence[Widths]) -> "_Grid":
        distinct: dict[Widths, int] = {}
        slots = [-1 if self.workload(w) is None else distinct.setdefault(self.rounded(w), len(distinct)) for w in points]
        kernels = self._describe(list(distinct)) if distinct else None
        return _Grid({w: i for i, w in enumerate(points)}, np.array(slots, dtype=np.intp), distinct, kernels)

    def _bounds(self, grid: "_Grid") -> tuple[Floats, Floats, Floats]:
        """Seconds [n], low and high: 0 where the kernel vanishes, as measured where it was, infinite where it failed."""
        if not self._prepared:
            self.prepare()
        rows = np.zeros((3, len(grid.slots)))
        if grid.kernels is None:
            return rows[0], rows[1], rows[2]
        distinct = np.stack(self._fitted().predict(grid.kernels))
        for widths, sample in self._samples.items():
            if widths in grid.distinct:
                distinct[:, grid.distinct[widths]] = _bounds_of(sample)
        present = grid.slots >= 0
        rows[:, present] = distinct[:, grid.slots[present]]
        for widths, sample in self._samples.items():
            if widths in grid.index:
                rows[:, grid.index[widths]] = _bounds_of(sample)
        return rows[0], rows[1], rows[2]

    def _fitted(self) -> Emulator:
        if self._emulator is None:
            good = {w: s.latency for w, s in self._samples.items() if s.latency is not None}
            if not good:
                first = next(iter(self._samples.values()))
                raise MeasureError(f"no kernel like {first.workload} has a latency: {first.failure}")
            self._emulator = emulate(self._describe([self.rounded(w) for w in good]), list(good.values()))
        return self._emulator

    def _describe(self, points: Sequence[Widths]) -> Kernels:
        return describe(points, [self._present(w) for w in points], self._flops)

    def _present(self, widths: Widths) -> Workload:
        workload = self.workload(widths)
        if workload is None:
            raise OptionError(f"the family over {self.family.coordinates} has a kernel at smaller widths, but none at {widths}")
        return workload


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Points with their places, and for each the slot of the distinct kernel that it rounds up to, -1 where there is none."""

    index: Mapping[Widths, int]
    slots: npt.NDArray[np.intp]
    distinct: Mapping[Widths, int]
    kernels: Kernels | None


def _bounds_of(sample: Sample) -> tuple[float, float, float]:
    latency = sample.latency
    return (latency.seconds, latency.low, latency.high) if latency else (math.inf, math.inf, math.inf)


def _thinned(widths: Iterable[int], most: int = 12) -> list[int]:
    """Evenly spaced widths, both ends among them: enough to choose a few anchors from."""
    ordered = sorted(widths)
    return [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(int))]


def _round_up(width: int, step: int, candidates: Sequence[int]) -> int:
    return max(width, min(-(-width // step) * step, candidates[-1]))
