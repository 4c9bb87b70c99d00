"""Group Taylor: the first-order change of the loss when an index is silenced."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from billhook.ir.axis import Axis, Member
from billhook.ir.errors import DataError
from billhook.ir.program import Program

from .norms import affine_names
from .saliency import Floats, Gradients, Scores, finite, index_sums, makers, parameter_members, parameters

Form = Literal["auto", "norm", "weight"]


@dataclass(frozen=True, slots=True)
class Taylor:
    """abs(sum of parameter * gradient) over what makes an index, averaged over batches (Molchanov et al. 2019).

    norm form (HALP, Shen et al. 2022; MDP, Sun et al. 2025): abs(sum over the norms of the axis of gamma * dgamma +
    beta * dbeta). weight form, for an axis that no norm scales: abs(sum of w * dw) over the weights and biases that
    produce the axis; where it has none, over those that act index by index, else over those that read it. `auto` takes
    the norm form where the axis has norm parameters.

    Both forms count in units of the loss: the first-order estimate of how much it changes when everything that makes
    index i becomes zero. So axes of either form may be added up. Only one side of the axis enters the weight form,
    because for linear layers and ReLU the producing and the reading side give the same number, and their sum twice it.
    The absolute value is taken per batch: batches in which removal helps do not pay for those in which it hurts.
    """

    form: Form = "auto"

    def __call__(self, program: Program, module: torch.nn.Module, gradients: Iterable[Gradients] = (), /) -> Scores:
        known = parameters(module)
        norms = affine_names(program)
        members = {axis.name: self._makers(axis, known, norms) for axis in program.axes}
        return mean_over_batches(program, known, members, gradients, lambda _, change: np.abs(change), "the Taylor criterion")

    def _makers(self, axis: Axis, known: dict[str, torch.Tensor], norms: frozenset[str]) -> list[Member]:
        members = parameter_members(axis, known)
        if self.form == "norm":
            return [m for m in members if m.tensor in norms]
        return makers(members, norms if self.form == "auto" else ())


def mean_over_batches(
    program: Program,
    known: Mapping[str, torch.Tensor],
    members: Mapping[str, list[Member]],
    gradients: Iterable[Gradients],
    worth: Callable[[str, Floats], Floats],
    criterion: str,
) -> Scores:
    """The mean over batches of worth(axis, change of the loss by index), where the members of an axis make the change.

    Raises DataError, naming the criterion where there are no gradients, or the axis where a score is not finite.
    """
    sums = {axis.name: np.zeros(axis.size) for axis in program.axes}
    batches = 0
    for gradient in gradients:
        batches += 1
        changes = products(known, gradient, members)
        for name, total in sums.items():
            total += worth(name, contribution(members[name], changes, len(total)))
    if not batches:
        raise DataError(f"{criterion} got no gradients; give it a data loader that is not empty")
    return {name: finite(name, total / batches) for name, total in sums.items()}


def products(known: Mapping[str, torch.Tensor], gradient: Gradients, members: Mapping[str, list[Member]]) -> dict[str, torch.Tensor]:
    """Products parameter * gradient of one batch, for every tensor that some axis needs; no gradient means that it is zero."""
    needed = {m.tensor for group in members.values() for m in group}
    return {name: known[name].double() * gradient[name].double() for name in needed if name in gradient}


def contribution(members: list[Member], products: Mapping[str, torch.Tensor], size: int) -> Floats:
    """Sum of products over everything that belongs to each index, shape [size]."""
    total = np.zeros(size)
    for member in members:
        if member.tensor in products:
            total += index_sums(member, products[member.tensor])
    return total


taylor = Taylor()
