"""Magnitude: the norm of all weights that belong to an index."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from billhook.ir.axis import Axis
from billhook.ir.program import Program

from .saliency import Floats, Gradients, Scores, finite, index_sums, index_weights, parameter_members, parameters


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Norm of everything that is removed with an index: its slices of all member parameters (buffers do not count).

    Han et al. 2015 and Li et al. 2017 (filter norms), with the norm taken over the whole dependency group as in
    Fang et al. 2023. Unit: that of the weights. An index with more weights has a larger norm, so axes with large slices
    are valued higher; with `mean` the score is the root of the *mean* square, which only says how large one weight is.
    order: 2 for the root of the sum of squares, 1 for the sum of absolute values.
    Where an axis occurs in both dimensions of a matrix, the entry on the diagonal counts for both.
    """

    mean: bool = False
    order: Literal[1, 2] = 2

    def __call__(self, program: Program, module: torch.nn.Module, _gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        return {axis.name: finite(axis.name, self._score(axis, known)) for axis in program.axes}

    def _score(self, axis: Axis, known: dict[str, torch.Tensor]) -> Floats:
        powers, weights = np.zeros(axis.size), 0
        for member in parameter_members(axis, known):
            tensor = known[member.tensor]
            powers += index_sums(member, tensor.double().abs().pow(self.order))
            weights += index_weights(member, tensor)
        mean = powers / max(weights, 1) if self.mean else powers
        return np.sqrt(mean) if self.order == 2 else mean


l1 = Magnitude(order=1)
l2 = Magnitude()
