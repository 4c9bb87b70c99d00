"""FPGM: how far an index is from all others of its axis."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.axis import Axis
from billhook.ir.program import Program

from .saliency import Floats, Gradients, Scores, finite, index_rows, makers, parameter_members, parameters


@dataclass(frozen=True, slots=True)
class Distance:
    """Sum of the Euclidean distances to all other indices of the axis (FPGM, He et al. 2019): the smallest is most replaceable.

    An index is the vector of all weights that make it (producers, else scales, else readers; biases and norms do not count), so that
    coupled layers are compared together. Unit: that of the weights, times the number of indices.
    """

    def __call__(self, program: Program, module: torch.nn.Module, _gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        return {axis.name: finite(axis.name, _distances(axis, known)) for axis in program.axes}


def _distances(axis: Axis, known: dict[str, torch.Tensor]) -> Floats:
    members = parameter_members(axis, known)
    rows = [index_rows(m, known[m.tensor]) for m in makers([m for m in members if known[m.tensor].dim() > 1] or members)]
    if not rows:
        return np.zeros(axis.size)
    vectors = torch.cat(rows, dim=1)
    gram = vectors @ vectors.T
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0).sqrt()
    return distances.fill_diagonal_(0.0).sum(dim=1).cpu().numpy()
