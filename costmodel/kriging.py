"""Interpolation with honest uncertainty: simple kriging (Sacks, Welch, Mitchell, Wynn 1989, "Design and Analysis of Computer
Experiments") with a Matern 3/2 correlation, its few constants chosen by leave-one-out predictive density.

A point is a place (base-2 logarithms of widths, so distances are octaves) and kinds (the channel blocks of its tensors): kernels of
another kind use another vector width, for example, so they inform each other only in part. The values are logarithms of ratios, mean zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Places [n, d] in octaves and kinds [n, e]; rows are points."""

    places: Floats
    kinds: Ints

    def __len__(self) -> int:
        return len(self.places)

    def row(self, index: int) -> "Points":
        return Points(self.places[[index]], self.kinds[[index]])


@dataclass(frozen=True, slots=True)
class Field:
    """Assumptions about the values: standard deviation, correlation length in octaves, correlation left per differing kind."""

    deviation: float = 0.15
    length: float = 3.0
    kinship: float = 0.7

    def covariance(self, a: Points, b: Points) -> Floats:
        """Covariances [len(a), len(b)]."""
        apart = np.linalg.norm(a.places[:, None, :] - b.places[None, :, :], axis=2) * (np.sqrt(3) / self.length)
        differing = (a.kinds[:, None, :] != b.kinds[None, :, :]).sum(axis=2)
        return self.deviation**2 * (1 + apart) * np.exp(-apart) * self.kinship**differing


_FIELDS = tuple(Field(d, n, k) for d, n, k in product((0.04, 0.08, 0.16, 0.32, 0.64), (3.0, 6.0), (0.9, 0.5)))


@dataclass(frozen=True, slots=True, eq=False)
class Interpolator:
    """A field conditioned on observations: observed points, the inverse of their covariance [n, n], and weights [n]."""

    field: Field
    observed: Points
    inverse: Floats
    weights: Floats

    def predict(self, points: Points) -> tuple[Floats, Floats]:
        """Values [m] and their standard deviations [m]."""
        covariance = self.field.covariance(points, self.observed)
        variance = self.field.deviation**2 - np.einsum("ij,jk,ik->i", covariance, self.inverse, covariance)
        return covariance @ self.weights, np.sqrt(np.maximum(variance, 0.0))


def interpolate(observed: Points, values: Floats, noise: Floats) -> Interpolator:
    """Condition on values [n] with standard deviations noise [n]; the field is the one that predicts each value best from the others.

    With fewer than three observations nothing can be chosen, and the default field is taken.
    """
    fields = _FIELDS if len(observed) >= 3 else (Field(),)
    return max((_condition(f, observed, values, noise) for f in fields), key=_left_out_density)


def _condition(field: Field, observed: Points, values: Floats, noise: Floats) -> Interpolator:
    inverse: Floats = np.linalg.inv(field.covariance(observed, observed) + np.diag(noise**2)).astype(np.float64)
    return Interpolator(field, observed, inverse, inverse @ values)


def _left_out_density(interpolator: Interpolator) -> float:
    """Sum of the log densities of each value given all the others (Rasmussen and Williams 2006, equations 5.10 to 5.12)."""
    precision = np.diag(interpolator.inverse)
    return float((np.log(precision) - interpolator.weights**2 / precision).sum()) / 2


def design(points: Points, importance: Floats, first: Sequence[int], count: int) -> list[int]:
    """Indices of up to `count` points to observe: those in `first`, then one after the other the point whose value is least known
    from those chosen so far, times its importance [n].

    These are the pivots of a Cholesky factorisation of the covariance, which need no observed value.
    """
    field = Field()
    columns = np.zeros((len(points), 0))
    variance = np.full(len(points), field.deviation**2)
    chosen: list[int] = []
    while len(chosen) < min(count, len(points)):
        pivot = first[len(chosen)] if len(chosen) < len(first) else int(np.argmax(variance * importance))
        if variance[pivot] <= 0:
            break
        column = field.covariance(points, points.row(pivot))[:, 0] - columns @ columns[pivot]
        columns = np.column_stack([columns, column / np.sqrt(variance[pivot])])
        variance = np.maximum(variance - columns[:, -1] ** 2, 0.0)
        variance[pivot] = 0.0
        chosen.append(pivot)
    return chosen
