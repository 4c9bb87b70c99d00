"""Optimizers around a cut: their state sliced like the weights, and AdaSAP's sharpness-aware step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from billhook.ir.dims import kept_mask
from billhook.ir.errors import DataError
from billhook.ir.plan import Plan
from billhook.ir.program import Program

from .saliency import Floats
from .schedule import PerAxis
from .schedule_training import MaskedTraining


def cut_optimizer(
    optimizer: torch.optim.Optimizer, program: Program, plan: Plan, dense: nn.Module, pruned: nn.Module
) -> torch.optim.Optimizer:
    """A new optimizer of the same class and options for the pruned model, with the momenta of the indices that stay.

    Every tensor of a parameter's state that has the parameter's shape is sliced as the parameter was; what has another shape (step
    counts) is copied. Parameter groups keep their options. Raises DataError where the optimizer holds parameters that the dense model
    lacks, or the pruned model lacks one that stays.
    """
    names = {id(p): n for n, p in dense.named_parameters()}
    smaller = dict(pruned.named_parameters())
    masks = plan.masks(program)
    types = {str(n.target): program.types.get(n.name, ()) for n in program.nodes() if n.op == "get_attr"}
    groups: list[dict[str, Any]] = []
    pairs: list[tuple[nn.Parameter, nn.Parameter, str]] = []
    for group in optimizer.param_groups:
        found: list[nn.Parameter] = []
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is None:
                raise DataError("the optimizer holds a parameter that the dense model does not have; pass the model that it was made for")
            if name in smaller:
                found.append(smaller[name])
                pairs.append((parameter, smaller[name], name))
        groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": found})
    result: Any = type(optimizer)(groups, **_required(optimizer))
    for old, new, name in pairs:
        kept = [torch.from_numpy(np.flatnonzero(kept_mask(d, masks))) for d in types.get(name, ())]
        state = {k: _sliced(v, old, kept, name) for k, v in optimizer.state.get(old, {}).items()}
        if state:
            result.state[new] = state
    return result


def _required(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Options without which some optimizers cannot be made; the groups bring all others."""
    return {"lr": optimizer.defaults["lr"]} if "lr" in optimizer.defaults else {}


def _sliced(value: Any, parameter: torch.Tensor, kept: list[torch.Tensor], name: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.shape or not value.dim():
        return value.clone()
    if len(kept) != value.dim():
        raise DataError(f"the program does not say how parameter {name} is cut; trace the model that the optimizer trains")
    for dim, positions in enumerate(kept):
        value = value.index_select(dim, positions.to(value.device))
    return value.clone()


@dataclass(slots=True)
class SharpnessAware:
    """AdaSAP (Bair et al. 2023): before each gradient, weights move uphill by `radius`, further where an index is likely to go.

    The perturbation of a weight w with gradient g is radius * g / ||g||, times a factor between 1 (index of the highest score of its axis)
    and `most` (of the lowest), so that what is cut soon lies in a flat place. scores: at present, per axis.

        loss = sharp.step(lambda: loss_of(model(x), y))     instead of loss.backward(); optimizer.step()
    """

    training: MaskedTraining
    radius: float = 0.05
    most: float = 4.0

    def step(self, closure: Callable[[], torch.Tensor], scores: PerAxis) -> torch.Tensor:
        """One update: gradient, perturbation, gradient there, back, optimizer step. Returns the loss at the unperturbed weights."""
        optimizer = self.training.optimizer
        optimizer.zero_grad()
        loss = closure()
        torch.autograd.backward(loss)
        moves = self.perturbation(scores)
        with torch.no_grad():
            for parameter, move in moves:
                parameter.add_(move)
        optimizer.zero_grad()
        torch.autograd.backward(closure())
        with torch.no_grad():
            for parameter, move in moves:
                parameter.sub_(move)
        optimizer.step()
        return loss.detach()

    def perturbation(self, scores: PerAxis) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """(parameter, move) of every parameter that has a gradient."""
        named: Mapping[str, nn.Parameter] = dict(self.training.model.named_parameters())
        factors = self.training.spread({axis: self._factors(s) for axis, s in scores.items()})
        pairs = [(p, p.grad * factors.get(n, torch.ones(()))) for n, p in named.items() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p, _ in pairs if p.grad is not None]).norm().clamp_min(1e-12)
        return [(p, self.radius / norm * move) for p, move in pairs]

    def _factors(self, scores: Floats) -> Floats:
        span = float(scores.max() - scores.min())
        return np.ones(len(scores)) if span <= 0 else self.most - (self.most - 1) * (scores - scores.min()) / span
