"""The physical part of a latency surface: a kernel takes a start-up time, time to compute and time to move its data.

    t = overhead + flops / rate + bytes / bandwidth

with constants that are fitted to a few measured kernels and are never negative. What the law leaves over (tiles that fit badly,
caches, block widths) is a smooth ratio, which `kriging` interpolates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
_LAW_ERROR = 0.05  # relative standard deviation of real kernels around the law


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """coefficients [3]: seconds of overhead, seconds per flop, seconds per byte; best: smallest of the last two ever observed.

    `best` bounds every prediction from below: no kernel of a family is faster than the family's best kernel per flop or per byte.
    """

    coefficients: Floats
    best: Floats

    def seconds(self, work: Floats) -> Floats:
        """Latencies [n] in seconds of kernels with work [n, 2] = (flops, bytes)."""
        return _features(work) @ self.coefficients

    def bound(self, work: Floats) -> Floats:
        """Lower bounds [n] in seconds for kernels with work [n, 2]."""
        return (work * self.best).max(axis=1)


def fit_law(work: Floats, seconds: Floats, noise: Floats) -> Law:
    """Fit to kernels with work [n, 2] = (flops, bytes) that took seconds [n]: least squares of the relative errors.

    noise [n]: relative standard deviations of the seconds; measurements that are noisy beyond the law's own error count less.
    With few kernels few constants are fitted (n - 1, at least one), so that something is left over to judge the fit by.
    """
    features = _features(work)
    weights = 1 / np.hypot(noise, _LAW_ERROR)
    scaled = features * (weights / seconds)[:, None]
    fits = list(_nonnegative_fits(scaled, weights, max(1, min(3, len(seconds) - 1))))
    coefficients = min(fits, key=lambda c: float(np.square(scaled @ c - weights).sum()))
    with np.errstate(divide="ignore"):
        rates = np.where(work > 0, seconds[:, None] / work, np.inf).min(axis=0)
    return Law(coefficients, np.where(np.isfinite(rates), rates, 0.0))


def _features(work: Floats) -> Floats:
    return np.column_stack([np.ones(len(work)), work])


def _nonnegative_fits(scaled: Floats, wanted: Floats, most: int) -> Iterator[Floats]:
    """Least-squares solutions of scaled @ c = wanted with up to `most` constants, all of them positive.

    The non-negative optimum is one of them, because it solves the unconstrained problem over its own support.
    """
    for count in range(1, most + 1):
        for chosen in combinations(range(3), count):
            columns: Floats = scaled[:, list(chosen)]
            scale: Floats = np.linalg.norm(columns, axis=0)
            if not scale.all():
                continue
            solution: Floats = np.linalg.lstsq(columns / scale, wanted)[0] / scale
            if (solution > 0).all():
                full = np.zeros(3)
                full[list(chosen)] = solution
                yield full
