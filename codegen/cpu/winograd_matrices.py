"""The matrices of Winograd's minimal filtering F(m, 3) (Lavin and Gray, arXiv 1509.09308), and short ways to multiply by them.

The points at which the polynomials are evaluated decide the error in float32. The usual 0, +-1, +-2 for F(4, 3) give errors near 1e-5 of
the largest output; points whose products stay near one (0, +-sqrt(1/2), +-sqrt(2)) give a fifth of that at the same cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]
TAPS = 3
POINTS: Mapping[int, tuple[float, ...]] = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """y = output @ ((weight @ g) * (data @ d)): m correlations of a 3-tap filter g with an input d of m + 2 values."""

    output: Matrix  # [m, m + 2]
    weight: Matrix  # [m + 2, 3]
    data: Matrix  # [m + 2, m + 2]


@cache
def transform(m: int) -> Transform:
    """F(m, 3) by evaluation at POINTS[m] and at infinity. KeyError for other m."""
    points, size = POINTS[m], m + TAPS - 1
    output, weight, data = np.zeros((m, size)), np.zeros((size, TAPS)), np.zeros((size, size))
    for j, point in enumerate(points):
        others = [p for p in points if p != point]
        output[:, j] = point ** np.arange(m)
        weight[j] = point ** np.arange(TAPS) / np.prod([point - p for p in others])
        data[j, :-1] = np.poly(others)[::-1]
    output[m - 1, -1] = weight[-1, -1] = 1.0
    data[-1] = np.poly(points)[::-1]
    return Transform(*(np.where(np.abs(a) < 1e-12, 0.0, a) for a in (output, weight, data)))


Terms: TypeAlias = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """Rows of a matrix-vector product. `second` None: one row, the sum of `first`. Otherwise two: first + second, first - second."""

    rows: tuple[int, ...]
    first: Terms
    second: Terms | None = None


def steps(matrix: Matrix, known: Sequence[bool]) -> tuple[Step, ...]:
    """How to multiply by `matrix`, sharing what the rows of opposite points have in common. known: False where the operand is zero."""
    found: list[Step] = []
    row = 0
    while row < len(matrix):
        pair = matrix[row : row + 2]
        even, odd = pair.sum(axis=0) / 2, (pair[0] - pair[-1]) / 2
        if len(pair) == 2 and odd.any() and not np.any(even * odd) and np.count_nonzero(even) + np.count_nonzero(odd) > 2:
            found.append(Step((row, row + 1), _terms(even, known), _terms(odd, known)))
            row += 2
        else:
            found.append(Step((row,), _terms(matrix[row], known)))
            row += 1
    return tuple(found)


def _terms(row: Matrix, known: Sequence[bool]) -> Terms:
    """The operands of a sum with their coefficients, those with coefficient one first: they start the sum without a multiplication."""
    terms = [(i, float(c)) for i, c in enumerate(row) if c and known[i]]
    return tuple(sorted(terms, key=lambda t: t[1] != 1.0))
