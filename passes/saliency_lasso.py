"""Channel pruning by LASSO: which indices are needed to rebuild what reads them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.dims import occurrences
from billhook.ir.errors import OptionError
from billhook.ir.program import Program

from .reader_features import second_moments
from .readers import Reader, find_readers
from .saliency import Data, Floats, Scores, finite, parameters
from .saliency_activation import Activation

_LEAST = 1e-4  # of the largest penalty: where the path ends
_SWEEPS = 200  # of coordinate descent, at most, per penalty
_TOLERANCE = 1e-7
_NOTHING = 1e-6  # a coefficient below that is one of rounding


@dataclass(frozen=True, slots=True)
class Lasso:
    """Largest penalty at which an index is still used to rebuild its readers' outputs (CP, He, Zhang and Sun 2017).

    With Z_i what index i contributes to a reader's output, minimise ||sum_i Z_i - sum_i b_i Z_i||^2 / 2 + penalty * sum abs(b_i):
    as the penalty falls, indices enter one after the other. Z is never formed: its Gram matrix is the elementwise product of the
    second moments of the features and of W^T W. Several readers add up, each as a share of its output's energy, which is the unit.
    An axis that no linear map or convolution reads is scored by its share of the activations' energy.
    """

    penalties: int = 60

    def __post_init__(self) -> None:
        if self.penalties < 2:
            raise OptionError(f"lasso: at least 2 penalties are needed, not {self.penalties}")

    def score(self, program: Program, module: torch.nn.Module, data: Data, /) -> Scores:
        """Scores by two passes over the data. Raises DataError like `Activation`."""
        known = parameters(module)
        energy = Activation(power=2).score(program, module, data)
        grams = reader_grams(program, known, data)
        scores: dict[str, Floats] = {}
        for axis in program.axes:
            total = np.zeros((axis.size, axis.size))
            for reader, gram in grams.items():
                part = _index_gram(reader, gram, axis.name, axis.size)
                total += part / part.sum() if part.sum() > 0 else 0.0
            if total.any():
                scores[axis.name] = finite(axis.name, entries(total, self.penalties))
            else:
                scores[axis.name] = energy[axis.name] / max(float(energy[axis.name].sum()), 1e-300)
        return scores


def reader_grams(program: Program, known: Mapping[str, torch.Tensor], data: Data) -> dict[Reader, Floats]:
    """For every reader the matrix [features, features] of (sum over the data of x_f x_g) * (sum over outputs of w_f w_g)."""
    readers = [r for r in find_readers(program) if r.weight in known]
    moments = second_moments(program, readers, data)
    found: dict[Reader, Floats] = {}
    for reader in readers:
        weight = known[reader.weight].double().flatten(1)
        found[reader] = (moments[reader.node].total * (weight.T @ weight)).cpu().numpy()
    return found


def _index_gram(reader: Reader, gram: Floats, axis: str, size: int) -> Floats:
    """Gram matrix [size, size] of what the indices of an axis contribute to a reader's output."""
    places = [o.positions() for o in occurrences(reader.inputs) if o.axis == axis]
    if not places:
        return np.zeros((size, size))
    columns = reader.columns(np.concatenate(places, axis=1)).reshape(size, -1)
    rows = gram[columns].sum(axis=1)
    return rows[:, columns].sum(axis=2)


def entries(gram: Floats, penalties: int) -> Floats:
    """Largest penalty of a falling grid at which each coefficient is not 0; those that never are, by correlation below the grid's end.

    Within one step of the grid, larger coefficients come first.
    """
    wanted = gram.sum(axis=1)
    most = float(wanted.max())
    if most <= 0:
        return np.zeros(len(gram))
    grid = np.geomspace(most, most * _LEAST, penalties)
    step = grid[0] / grid[1]
    scores, b = np.zeros(len(gram)), np.zeros(len(gram))
    for penalty in grid[1:]:
        b = _descend(gram, wanted, b, float(penalty))
        new = (scores == 0) & (np.abs(b) > _NOTHING)
        scores[new] = penalty * (1 + (step - 1) * 0.5 * np.abs(b[new]) / np.abs(b[new]).max(initial=1e-300))
        if (scores > 0).all():
            break
    rest = scores == 0
    scores[rest] = grid[-1] * 0.5 * np.clip(wanted[rest] / most, 0.0, 1.0)
    return scores


def _descend(gram: Floats, wanted: Floats, start: Floats, penalty: float) -> Floats:
    """Coordinate descent for min b'Gb/2 - wanted'b + penalty * sum abs(b)."""
    b = start.copy()
    residual = wanted - gram @ b
    diagonal = np.diagonal(gram)
    free = np.flatnonzero(diagonal > 0)
    for sweep in range(_SWEEPS):
        largest = 0.0
        active = free if sweep % 5 == 0 else free[b[free] != 0]
        for i in active.tolist():
            old = b[i]
            reach = residual[i] + diagonal[i] * old
            b[i] = np.sign(reach) * max(abs(reach) - penalty, 0.0) / diagonal[i]
            if b[i] != old:
                residual -= gram[i] * (b[i] - old)
                largest = max(largest, abs(b[i] - old))
        if largest < _TOLERANCE and len(active) == len(free):
            break
    return b
