"""DIMAP in group form: how much the modules that an index passes through are distorted without it. Needs no data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.program import Program

from .saliency import Floats, Gradients, Scores, finite, index_sums, parameter_members, parameters


@dataclass(frozen=True, slots=True)
class Distortion:
    """Sum over modules of the share of the module's energy that lies on the index (after DIMAP, He and Zhou 2024).

    DIMAP bounds the distortion of a module (a window attention, an MLP) by the energy of what is removed from it, relative to
    what it has, so that weights are compared within the module and not within a layer. For an index i of an axis, which has weights
    in several modules M, the bounds add up:

        score_i = sum over M of ||W_M[i]||^2 / ||W_M||^2.

    A module is what owns several layers: the parent of the modules that own the weights. Only matrices and filters have energy.
    Unit: a share.
    """

    def __call__(self, program: Program, module: torch.nn.Module, _gradients: Iterable[Gradients] = (), /) -> Scores:
        known = {name: tensor for name, tensor in parameters(module).items() if tensor.dim() > 1}
        energy = _energies(known)
        scores: dict[str, Floats] = {}
        for axis in program.axes:
            score = np.zeros(axis.size)
            for member in parameter_members(axis, known):
                total = energy[module_of(member.tensor)]
                score += index_sums(member, known[member.tensor].double().square()) / total if total else 0.0
            scores[axis.name] = finite(axis.name, score)
        return scores


def module_of(tensor: str) -> str:
    """The module that a parameter's layer is part of: `layer1.0` for `layer1.0.conv1.weight`, empty at the top."""
    layer = tensor.rpartition(".")[0]
    return layer.rpartition(".")[0]


def _energies(known: Mapping[str, torch.Tensor]) -> dict[str, float]:
    energies: dict[str, float] = {}
    for name, tensor in known.items():
        energies[module_of(name)] = energies.get(module_of(name), 0.0) + float(tensor.double().square().sum())
    return energies
