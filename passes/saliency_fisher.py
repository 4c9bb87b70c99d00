"""Squared Taylor, which is the empirical Fisher information of an index."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.axis import Member
from billhook.ir.errors import DataError
from billhook.ir.program import Program

from .saliency import Gradients, Scores, finite, makers, parameter_members, parameters
from .saliency_taylor import contribution, products


@dataclass(frozen=True, slots=True)
class Fisher:
    """((1/d) * sum of w * dw)^2 over the weights that make the index, averaged over batches (NViT, Yang et al. 2023).

    d: number of layers that make the axis, so that an embedding, which all blocks write to, is not worth more for that alone.
    Unit: that of the loss, squared.
    """

    def __call__(self, program: Program, module: torch.nn.Module, gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        members = {axis.name: makers(parameter_members(axis, known)) for axis in program.axes}
        sums = {axis.name: np.zeros(axis.size) for axis in program.axes}
        batches = 0
        for gradient in gradients:
            batches += 1
            changes = products(known, gradient, members)
            for name, total in sums.items():
                total += np.square(contribution(members[name], changes, len(total)) / layers(members[name]))
        if not batches:
            raise DataError("the squared Taylor criterion got no gradients; give it a data loader that is not empty")
        return {name: finite(name, total / batches) for name, total in sums.items()}


def layers(members: Iterable[Member]) -> int:
    """Number of distinct layers that hold the members, at least 1: a weight and its bias are one layer."""
    return max(1, len({m.tensor.rpartition(".")[0] for m in members}))
