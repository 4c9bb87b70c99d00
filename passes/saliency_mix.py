"""The mix of HESSO: five views of one index, each on the same scale."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.errors import DataError
from billhook.ir.program import Program

from .saliency import Gradients, Scores, finite, index_sums, index_weights, parameter_members, parameters

_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Mix:
    """Mean of five normalised scores of the weights x of an index and their mean gradient g (OTO's HESSO, Chen et al. 2024).

    The views: ||x||, ||x|| / sqrt(number of weights), cosine(x, g) + 1, abs(x . g), (x . g)^2 / 2. Each is divided by its sum over
    all indices of all axes that can be cut, so that none of them outweighs the others by its unit. x and g run over everything
    that goes with the index.
    """

    def __call__(self, program: Program, module: torch.nn.Module, gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        mean = _mean(gradients)
        views = {axis.name: np.zeros((5, axis.size)) for axis in program.axes}
        for axis in program.axes:
            xx, gg, xg, count = np.zeros(axis.size), np.zeros(axis.size), np.zeros(axis.size), 0
            for member in parameter_members(axis, known):
                x = known[member.tensor].double()
                g = mean[member.tensor].double() if member.tensor in mean else torch.zeros_like(x)
                xx, gg, xg = xx + index_sums(member, x * x), gg + index_sums(member, g * g), xg + index_sums(member, x * g)
                count += index_weights(member, x)
            cosine = xg / np.maximum(np.sqrt(xx * gg), _TINY)
            norm = np.sqrt(xx)
            views[axis.name][:] = norm, norm / np.sqrt(max(count, 1)), cosine + 1, np.abs(xg), 0.5 * xg**2
        free = [views[axis.name] for axis in program.axes if axis.prunable] or list(views.values())
        totals = np.maximum(np.concatenate(free, axis=1).sum(axis=1), _TINY)[:, None]
        return {name: finite(name, np.clip((view / totals).mean(axis=0), 0.0, None)) for name, view in views.items()}


def _mean(gradients: Iterable[Gradients]) -> Mapping[str, torch.Tensor]:
    """The mean gradient over all batches."""
    total: dict[str, torch.Tensor] = {}
    batches = 0
    for gradient in gradients:
        batches += 1
        for name, value in gradient.items():
            total[name] = total[name] + value if name in total else value.clone()
    if not batches:
        raise DataError("the criterion mix got no gradients; give it a data loader that is not empty")
    return {name: value / batches for name, value in total.items()}
