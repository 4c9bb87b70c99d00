"""LAMP: magnitude, relative to all that is still left of the axis when it is this index's turn."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.program import Program

from .saliency import Floats, Gradients, Scores
from .saliency_magnitude import l2


@dataclass(frozen=True, slots=True)
class Lamp:
    """w^2 / (sum of the squares of all indices of the axis that are not smaller) (Lee et al. 2021).

    w is the L2 norm of everything that goes with the index. The largest index of every axis scores 1, so no axis is emptied
    before all others are down to one. Unit: a share, comparable between axes.
    """

    def __call__(self, program: Program, module: torch.nn.Module, _gradients: Iterable[Gradients] = (), /) -> Scores:
        return {name: lamp(norms**2) for name, norms in l2(program, module).items()}


def lamp(squares: Floats) -> Floats:
    """Each square over the sum of those that are not smaller; 0 where all are 0."""
    order = np.argsort(squares, kind="stable")
    ascending = squares[order]
    left = np.cumsum(ascending[::-1])[::-1]
    first = np.searchsorted(ascending, ascending)  # of equal squares, all count as not smaller
    scores = np.zeros_like(squares)
    scores[order] = np.divide(ascending, left[first], out=np.zeros_like(ascending), where=left[first] > 0)
    return scores
