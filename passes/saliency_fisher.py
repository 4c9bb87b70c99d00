"""Squared Taylor, which is the empirical Fisher information of an index."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.axis import Member
from billhook.ir.program import Program

from .saliency import Floats, Gradients, Scores, makers, parameter_members, parameters
from .saliency_taylor import mean_over_batches


@dataclass(frozen=True, slots=True)
class Fisher:
    """((1/d) * sum of w * dw)^2 over the weights that make the index, averaged over batches (NViT, Yang et al. 2023).

    d: number of layers that make the axis, so that an embedding, which all blocks write to, is not worth more for that alone.
    Unit: that of the loss, squared.
    """

    def __call__(self, program: Program, module: torch.nn.Module, gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        members = {axis.name: makers(parameter_members(axis, known)) for axis in program.axes}

        def squared(name: str, change: Floats) -> Floats:
            return np.square(change / layers(members[name]))

        return mean_over_batches(program, known, members, gradients, squared, "the squared Taylor criterion")


def layers(members: Iterable[Member]) -> int:
    """Number of distinct layers that hold the members, at least 1: a weight and its bias are one layer."""
    return max(1, len({m.tensor.rpartition(".")[0] for m in members}))
