"""HAP: curvature. The trace of the loss's Hessian over the weights that make an index, by Hutchinson's estimator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import nn
from torch.nn import attention

from billhook.ir.axis import Member
from billhook.ir.errors import DataError, OptionError
from billhook.ir.program import Program

from .batches import Loss, apply, first_line, mode, scalar_loss, split
from .saliency import Data, Scores, finite, index_sums, index_weights, makers, parameter_members, parameters

Drawn: TypeAlias = Iterator[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Curvature:
    """max(trace, 0) / size * ||w||^2 / 2 (HAP, Yu et al. 2021), where the trace is that of the Hessian block of the weights w that make
    an index, `size` is their number, and v'Hv over random signs v estimates it, averaged over batches and `draws` of v for each.

    Unit: that of the loss, the second-order estimate of its change without the index. A block of negative trace costs nothing.
    """

    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise OptionError(f"curvature: at least 1 draw is needed, not {self.draws}")

    def score(self, program: Program, module: nn.Module, data: Data, /) -> Scores:
        """Scores by `draws` Hessian products per batch. Raises DataError: no batch, or a loss or a trace that is not finite."""
        known = parameters(module)
        members = {axis.name: makers(parameter_members(axis, known)) for axis in program.axes}
        generator = torch.Generator().manual_seed(self.seed)
        sums = {axis.name: np.zeros(axis.size) for axis in program.axes}
        count = 0
        for count, batch in enumerate(islice(data.loader, data.batches), start=1):
            for name, products in self._products(module, batch, data.loss, count - 1, generator):
                for axis, found in members.items():
                    sums[axis] += sum((index_sums(m, products) for m in found if m.tensor == name), np.zeros(1))
            if data.progress is not None:
                data.progress("curvature", count, max(data.batches or 0, count))
        if not count:
            raise DataError("the data loader is empty; the criterion hap needs at least one batch")
        return {a: finite(a, _score(s / (count * self.draws), members[a], known)) for a, s in sums.items()}

    def _products(self, module: nn.Module, batch: Any, loss_fn: Loss, index: int, generator: torch.Generator) -> Drawn:
        """(name, v * Hv) of every parameter, for each draw."""
        named = {n: p for n, p in module.named_parameters(remove_duplicate=False) if p.is_floating_point()}
        unique = list({id(p): p for p in named.values()}.values())
        frozen = [p for p in unique if not p.requires_grad]
        inputs, target = split(batch)
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            # Fused attention has no second derivative; the plain form computes the same.
            with mode(module, training=False), torch.enable_grad(), attention.sdpa_kernel(attention.SDPBackend.MATH):
                loss = scalar_loss(loss_fn, apply(module, inputs), target, index)
                gradients = torch.autograd.grad(loss, unique, create_graph=True, allow_unused=True)
                for _ in range(self.draws):
                    yield from _draw(named, unique, gradients, generator)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)


def _draw(named: Mapping[str, torch.Tensor], unique: list[nn.Parameter], gradients: Any, generator: torch.Generator) -> Drawn:
    signs = [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for p in unique]
    pairs = [(g, v) for g, v in zip(gradients, signs, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return
    inner: Any = sum((g * v).sum() for g, v in pairs)
    try:
        products = cast("tuple[torch.Tensor | None, ...]", torch.autograd.grad(inner, unique, retain_graph=True, allow_unused=True))
    except RuntimeError as failure:  # some activations have none in torch
        raise OptionError(f"criterion hap needs second derivatives: {first_line(failure)}; choose another criterion") from failure
    by_id = {id(p): v * h for p, v, h in zip(unique, signs, products, strict=True) if h is not None}
    for name, parameter in named.items():
        if id(parameter) in by_id:
            yield name, by_id[id(parameter)].detach()


def _score(trace: Any, members: list[Member], known: Mapping[str, torch.Tensor]) -> Any:
    squares = sum((index_sums(m, known[m.tensor].double().square()) for m in members), np.zeros(len(trace)))
    size = sum(index_weights(m, known[m.tensor]) for m in members)
    return np.clip(trace, 0.0, None) / max(size, 1) * squares / 2
