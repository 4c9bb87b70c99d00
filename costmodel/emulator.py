"""An emulator of a kernel family: the physical law, times a ratio that is kriged from the measured kernels (regression kriging)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from billhook.ir.latency import Latency
from billhook.ir.workload import Workload

from .kriging import Interpolator, Points, interpolate
from .law import Law, fit_law
from .work import kernel_bytes

Floats: TypeAlias = npt.NDArray[np.float64]
CountFlops: TypeAlias = Callable[[Workload], float]
_LEAST_NOISE = 0.01  # standard deviation, as a share, of what two builds of one kernel take


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """What the emulator sees of n kernels: their widths, and their work [n, 2] = (flops, bytes).

    The kinds of the points are the blocks of the first input and of the output, and how many inputs remain (a concatenation
    loses those that vanish).
    """

    points: Points
    work: Floats

    @property
    def importance(self) -> Floats:
        """Share [n] of the longest kernel's time, roughly, on a scale that keeps small kernels in sight."""
        return np.sqrt((self.work / np.maximum(self.work.max(axis=0), 1.0)).mean(axis=1))


def describe(widths: Sequence[tuple[int, ...]], workloads: Sequence[Workload], flops: CountFlops) -> Kernels:
    """Describe kernels with these widths; `flops` counts the operations of a workload."""
    places = np.log2(np.maximum(np.array(widths, dtype=np.float64).reshape(len(widths), -1), 1.0))
    kinds = np.array([[w.inputs[0].block, w.output.block, len(w.inputs)] for w in workloads], dtype=np.intp)
    work = np.array([[flops(w), kernel_bytes(w)] for w in workloads], dtype=np.float64)
    return Kernels(Points(places, kinds), work)


@dataclass(frozen=True, slots=True, eq=False)
class Emulator:
    """Predicts latencies; made by `emulate`."""

    law: Law
    ratio: Interpolator

    def predict(self, kernels: Kernels) -> tuple[Floats, Floats, Floats]:
        """Seconds [n] with the ends of their 95% intervals, never below what the family's best kernels need per flop and byte."""
        expected, bound = self.law.seconds(kernels.work), self.law.bound(kernels.work)
        log_ratio, deviation = self.ratio.predict(kernels.points)
        seconds = np.maximum(expected * np.exp(log_ratio), bound)
        high = np.maximum(expected * np.exp(log_ratio + 2 * deviation), seconds)
        return seconds, np.minimum(expected * np.exp(log_ratio - 2 * deviation), seconds), high


def emulate(kernels: Kernels, latencies: Sequence[Latency]) -> Emulator:
    """Fit to measured kernels, at least one of them. A latency's own interval says how closely it is followed."""
    seconds = np.array([x.seconds for x in latencies])
    noise = np.array([max((x.high - x.low) / (4 * x.seconds), _LEAST_NOISE) for x in latencies])
    law = fit_law(kernels.work, seconds, noise)
    return Emulator(law, interpolate(kernels.points, np.log(seconds / law.seconds(kernels.work)), noise))
