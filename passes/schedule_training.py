"""Masked training: a schedule inside any training loop, through the optimizer's own hooks.

    with MaskedTraining(program, model, optimizer, SoftMask(every=50), steps=1000, budget=budget) as training:
        for x, y in loader:                        # plain PyTorch, accelerate, Lightning, Hugging Face's Trainer: as it was
            optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()
    pruned = carry_out(program, training.plan())

Between two steps the model holds the masked weights, so every forward pass sees them, and so does evaluation. When the optimizer steps,
the full weights are put back first: gradients of masked weights act on them (straight through). Processes that average their gradients
before the step, as torchrun's do, agree on every mask without a word.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from billhook.ir.axis import Member
from billhook.ir.errors import DataError, OptionError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program

from .saliency import Criterion, Floats, Scores, index_sums, makers, parameter_members, parameters
from .saliency_criteria import GRADIENT_CRITERIA, WEIGHT_CRITERIA, check_criterion
from .schedule import Budget, Masks, Moment, PerAxis, Schedule

_NONE = Masks()


class MaskedTraining:
    """A context manager that runs a schedule. On leaving, the model has its full weights again, and the hooks are gone.

    model: holds the program's parameters by name (a wrapper such as DistributedDataParallel is seen through). criterion: the name of
    one that looks at weights or gradients, since data and second derivatives are not at hand inside a step. steps: updates in all.
    Raises OptionError for another criterion, and DataError where the model is frozen or lacks a parameter of the program.
    """

    def __init__(
        self,
        program: Program,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        steps: int,
        budget: Budget,
        criterion: str = "taylor",
    ) -> None:
        self.program, self.optimizer, self.schedule = program, optimizer, schedule
        self.model = _unwrapped(model)
        self.steps, self.budget, self.step, self.masks = steps, budget, 0, _NONE
        self._score = _criterion(criterion)
        self._by_gradients = criterion in GRADIENT_CRITERIA
        self._named = {n: p for n, p in self.model.named_parameters(remove_duplicate=False) if p.is_floating_point()}
        self._sites = {a.name: sites for a in program.axes if a.prunable and (sites := self._acting(a.name))}
        self._check()
        self._full: dict[str, torch.Tensor] = {}
        self._pull: dict[str, Floats] = {}
        self._sum: dict[str, Floats] = {}
        self._count = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self._handles = [
            self.optimizer.register_step_pre_hook(lambda *_: self._before()),
            self.optimizer.register_step_post_hook(lambda *_: self._after()),
        ]
        self._advance()
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._restore()

    def plan(self) -> Plan:
        """What the present masks keep."""
        kept = {name: np.flatnonzero(mask > 0.5).tolist() for name, mask in self.masks.keep.items()}
        return make_plan(self.program, {n: k for n, k in kept.items() if len(k) < self.program.axis(n).size})

    def spread(self, values: PerAxis) -> dict[str, torch.Tensor]:
        """Values per index as factors that broadcast over the parameters that masks act on."""
        factors: dict[str, torch.Tensor] = {}
        for axis, line in values.items():
            for member in self._sites.get(axis, ()):
                factor = self._spread(member, line, fill=1.0)
                factors[member.tensor] = factors[member.tensor] * factor if member.tensor in factors else factor
        return factors

    # ---------------------------------------------------------------- inside a step

    def _before(self) -> None:
        """The gradients are there, by the masked weights: look, put the full weights back, and shape the gradients."""
        gradients = {n: p.grad for n, p in self._named.items() if p.grad is not None}
        self._restore()
        self._pull = {name: self._pulled(name, gradients) for name in self._sites}
        if self._by_gradients:
            self._add(self._score(self.program, self.model, [gradients]))
        with torch.no_grad():
            for axis, sites in self._sites.items():
                flow, penalty = self.masks.flow.get(axis), self.masks.penalty.get(axis)
                for member in sites:
                    gradient = self._named[member.tensor].grad
                    if gradient is None:
                        continue
                    if penalty is not None:
                        gradient.add_(self._spread(member, penalty, fill=0.0) * self._named[member.tensor].sign())
                    if flow is not None:
                        gradient.mul_(self._spread(member, flow, fill=1.0))

    def _after(self) -> None:
        self.step += 1
        self._advance()

    def _advance(self) -> None:
        """The masks of the next step, and the weights under them."""
        if self.masks.decay:
            self._decay()
        self.masks = self.schedule(Moment(self.step, self.steps, self.masks, self._scores, self._pulls(), self.budget))
        if self.masks.decay == 1.0:
            self._decay()
        with torch.no_grad():
            for name, factor in self.spread(self.masks.keep).items():
                self._full[name] = self._named[name].detach().clone()
                self._named[name].mul_(factor)

    def _restore(self) -> None:
        with torch.no_grad():
            for name, full in self._full.items():
                self._named[name].copy_(full)
        self._full = {}

    def _decay(self) -> None:
        with torch.no_grad():
            for axis, keep in self.masks.keep.items():
                for member in self._sites.get(axis, ()):
                    self._named[member.tensor].mul_(1 - self.masks.decay * self._spread(member, 1 - keep, fill=0.0))

    # ---------------------------------------------------------------- what a schedule asks for

    def _scores(self) -> Scores:
        """Mean of the scores since the last call; by the weights, where the criterion needs no more or no gradient has been seen yet."""
        if self._by_gradients and self._count:
            found = {name: total / self._count for name, total in self._sum.items()}
            self._sum, self._count = {}, 0
            return found
        return self._score(self.program, self.model) if not self._by_gradients else WEIGHT_CRITERIA["l2"](self.program, self.model)

    def _add(self, scores: Scores) -> None:
        self._sum = {name: self._sum[name] + s if name in self._sum else s for name, s in scores.items()}
        self._count += 1

    def _pulls(self) -> dict[str, Floats]:
        return self._pull or {name: np.zeros(self.program.axis(name).size) for name in self._sites}

    def _pulled(self, axis: str, gradients: Mapping[str, torch.Tensor]) -> Floats:
        """Sum of full weight * gradient over what the mask of an axis acts on; other masks on the same tensor do not count in."""
        total = np.zeros(self.program.axis(axis).size)
        for member in self._sites[axis]:
            if member.tensor in gradients:
                total += index_sums(member, self._named[member.tensor].double() * gradients[member.tensor].double())
        return total

    def _acting(self, axis: str) -> list[Member]:
        """Where the mask of an axis acts: on what reads it, else on what makes it."""
        members = parameter_members(self.program.axis(axis), parameters(self.model))
        return [m for m in members if m.role == "consumer"] or makers(members)

    def _spread(self, member: Member, values: Floats, fill: float) -> torch.Tensor:
        """Values per index as a factor that broadcasts over the member's tensor."""
        tensor = self._named[member.tensor]
        line = np.full(tensor.shape[member.dim], fill)
        line[member.place.positions()] = values[:, None]
        shape = [1] * tensor.dim()
        shape[member.dim] = -1
        return torch.from_numpy(line).to(tensor).reshape(shape)

    def _check(self) -> None:
        missing = sorted({m.tensor for a in self.program.axes for m in a.members} & self._parameter_names() - self._named.keys())
        if missing:
            raise DataError(f"the model has no parameter {missing[0]}, which the program has; pass the model that was traced")
        if not any(p.requires_grad for p in self._named.values()):
            raise DataError("all parameters of the model are frozen, so nothing can be trained under masks; call requires_grad_() first")
        if not self._sites:
            raise DataError("no axis of the program can be masked; see which axes are frozen and why")

    def _parameter_names(self) -> set[str]:
        return {name for name, _ in self.program.graph.named_parameters(remove_duplicate=False)}


def _unwrapped(model: nn.Module) -> nn.Module:
    """What a data-parallel wrapper holds."""
    inner = getattr(model, "module", None)
    return inner if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)) and isinstance(inner, nn.Module) else model


def _criterion(name: str) -> Criterion:
    check_criterion(name)
    known: Mapping[str, Criterion] = {**WEIGHT_CRITERIA, **GRADIENT_CRITERIA}
    if name not in known:
        raise OptionError(f"criterion {name} runs the network itself, which no schedule can do inside a step; use {', '.join(known)}")
    return known[name]
