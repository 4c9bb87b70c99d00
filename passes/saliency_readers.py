"""SMCP's input side: the first-order change of the loss when what reads an index no longer does."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.errors import DataError
from billhook.ir.program import Program

from .saliency import Gradients, Scores, finite, makers, parameter_members, parameters
from .saliency_taylor import contribution, products


@dataclass(frozen=True, slots=True)
class Readers:
    """abs(sum of -w * dw over all weights that read the index), averaged over batches (SMCP, Humble et al. 2022).

    In training, outputs that are masked have no gradient, so only kept outputs count, as in the paper. An axis that no
    parameter reads is scored by what makes it. Unit: that of the loss, so axes may be added up.
    """

    def __call__(self, program: Program, module: torch.nn.Module, gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        found = {axis.name: parameter_members(axis, known) for axis in program.axes}
        members = {name: [m for m in all_ if m.role == "consumer"] or makers(all_) for name, all_ in found.items()}
        sums = {axis.name: np.zeros(axis.size) for axis in program.axes}
        batches = 0
        for gradient in gradients:
            batches += 1
            changes = products(known, gradient, members)
            for name, total in sums.items():
                total += np.abs(contribution(members[name], changes, len(total)))
        if not batches:
            raise DataError("the criterion of the readers got no gradients; give it a data loader that is not empty")
        return {name: finite(name, total / batches) for name, total in sums.items()}
