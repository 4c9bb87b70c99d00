"""Calibration: what a whole network takes, against the sum of its kernels.

The sum misses what kernels do to each other (caches, prefetching, clock). Its error is far larger than any solver gap, so it is
corrected by networks that were compiled and measured: measured = scale * predicted + offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from billhook.ir.errors import OptionError
from billhook.ir.latency import Latency

Floats: TypeAlias = npt.NDArray[np.float64]
_APART = 1.2  # two predictions closer than this factor say nothing about a slope
_MISSES, _PRIOR = 0.025, 4  # standard deviation of calibrated predictions of ResNet-18 and MobileNetV2; counts like so many residuals
_PLAUSIBLE = 0.1  # of the fastest network: a constant larger than this is noise, and would bend every other prediction


@dataclass(frozen=True, slots=True)
class Calibration:
    """seconds = scale * predicted + offset (seconds), known to `spread` as a share (95%); the default changes nothing."""

    scale: float = 1.0
    offset: float = 0.0
    spread: float = 0.0

    def apply(self, predicted: Latency) -> Latency:
        """The calibrated prediction, its interval widened by the spread."""
        value, low, high = (max(self.scale * x + self.offset, 0.0) for x in (predicted.seconds, predicted.low, predicted.high))
        return Latency(value, low * (1 - min(self.spread, 1.0)), high * (1 + self.spread), "predicted")

    def __str__(self) -> str:
        return f"measured = {self.scale:.4f} * predicted + {self.offset * 1e3:.4f} ms, +- {self.spread:.1%}"


UNCALIBRATED = Calibration()


def calibrate(pairs: Sequence[tuple[Latency, Latency]]) -> Calibration:
    """Fit to (uncalibrated prediction, measurement) of whole networks; no pairs give the identity.

    One pair, or several of nearly equal size, give a scale (median ratio); pairs that lie apart also give an offset (Theil and
    Sen: median of the pairwise slopes, so that one bad measurement out of three is outvoted). The spread is that of a 95% prediction
    interval for one more network by the relative residuals, Student's; as many are rarely known, what calibrated predictions were found
    to miss by elsewhere counts like a few residuals more. A fit that passes through all its pairs is charged half of what it changed
    against the simpler fit, at least. The spread is never below the measurements' own intervals.

    Raises:
        OptionError: a latency is not positive.
    """
    if not pairs:
        return UNCALIBRATED
    predicted = np.array([p.seconds for p, _ in pairs])
    measured = np.array([m.seconds for _, m in pairs])
    if (predicted <= 0).any() or (measured <= 0).any():
        raise OptionError("calibration needs positive latencies; leave networks out that take no time")
    noise = max((m.high - m.low) / (2 * m.seconds) for _, m in pairs)
    line = _line(predicted, measured)
    ratio = float(np.median(measured / predicted))
    scale, offset = line or (ratio, 0.0)
    fitted = 1 if line is None else 2
    spread = _spread((scale * predicted + offset) / measured - 1, fitted)
    if fitted == len(pairs):  # nothing is left over: half of what was changed against the simpler fit
        simpler = predicted if line is None else ratio * predicted
        spread = max(spread, float(np.abs(simpler / measured - 1).max()) / 2)
    return Calibration(scale, offset, max(spread, noise))


def _line(predicted: Floats, measured: Floats) -> tuple[float, float] | None:
    """Slope and offset, or None where the pairs do not determine a plausible line."""
    order = np.argsort(predicted)
    x, y = predicted[order], measured[order]
    slopes = [(y[j] - y[i]) / (x[j] - x[i]) for i, j in combinations(range(len(x)), 2) if x[j] >= _APART * x[i]]
    if not slopes:
        return None
    slope = float(np.median(slopes))
    offset = float(np.median(y - slope * x))
    return (slope, offset) if slope > 0 and abs(offset) <= _PLAUSIBLE * float(y.min()) else None


def _spread(residuals: Floats, fitted: int) -> float:
    """Half the width of a 95% prediction interval, as a share; `fitted` parameters were taken from the residuals."""
    freedom = len(residuals) - fitted + _PRIOR
    deviation = np.sqrt((np.square(residuals).sum() + _PRIOR * _MISSES**2) / freedom)
    quantile = float(special.stdtrit(freedom, 0.975))
    return float(quantile * deviation * np.sqrt(1 + 1 / len(residuals)))
