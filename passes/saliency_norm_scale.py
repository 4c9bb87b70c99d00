"""Batch-norm scale: how much the norms of an axis let through."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.program import Program

from .norms import scale_names
from .saliency import Floats, Gradients, Scores, finite, index_sums, parameter_members, parameters


@dataclass(frozen=True, slots=True)
class NormScale:
    """Sum over the norms of the axis of abs(gamma) (network slimming, Liu et al. 2017).

    An axis that no norm scales is not ranked by this criterion: each of its indices counts as the network's mean gamma, so that
    it neither goes first nor stays for nothing. Unit: that of gamma, which is comparable between batch norms only.
    """

    def __call__(self, program: Program, module: torch.nn.Module, _gradients: Iterable[Gradients] = (), /) -> Scores:
        known, scales = parameters(module), scale_names(program)
        members = {axis.name: [m for m in parameter_members(axis, known) if m.tensor in scales] for axis in program.axes}
        gammas = [np.abs(known[name].double().cpu().numpy()).ravel() for name in sorted(scales & known.keys())]
        neutral = float(np.concatenate(gammas).mean()) if gammas else 1.0
        scores: dict[str, Floats] = {}
        for axis in program.axes:
            sums = [index_sums(m, known[m.tensor].double().abs()) for m in members[axis.name]]
            scores[axis.name] = finite(axis.name, np.sum(sums, axis=0) if sums else np.full(axis.size, neutral))
        return scores
