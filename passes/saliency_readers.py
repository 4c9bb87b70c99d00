"""SMCP's input side: the first-order change of the loss when what reads an index no longer does."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.program import Program

from .saliency import Gradients, Scores, makers, parameter_members, parameters
from .saliency_taylor import mean_over_batches


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
        return mean_over_batches(program, known, members, gradients, lambda _, change: np.abs(change), "the criterion of the readers")
