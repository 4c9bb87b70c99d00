"""Gradients of the loss over the user's data, one batch at a time."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import cast

import torch

from billhook.ir.errors import DataError
from billhook.ir.progress import Progress

from .batches import Loader, Loss, apply, mode, scalar_loss, split
from .batches import size as loader_size
from .saliency import Gradients


def collect_gradients(
    module: torch.nn.Module,
    loader: Loader,
    loss_fn: Loss,
    batches: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Gradients]:
    """Yield, batch by batch, the gradient of the loss for every floating-point parameter that the loss depends on.

    batches: how many to take, all if None. The module runs in evaluation mode: normalisation by running statistics makes
    the loss of one sample independent of its batch, and under batch statistics every convolution before a norm would
    have sum(w * dw) = 0. One batch's gradients live at a time; `.grad`, modes and `requires_grad` stay as they were.

    Raises DataError: the loader is empty, a batch is no (inputs, target) pair or does not fit the model, or its loss or
    a gradient is NaN or infinite (naming the batch and the parameter).
    """
    total = batches if batches is not None else loader_size(loader)
    count = 0
    for count, batch in enumerate(islice(loader, batches), start=1):
        yield _gradients(module, batch, loss_fn, count - 1)
        if progress is not None:
            progress("saliency", count, max(total, count))
    if not count:
        raise DataError("the data loader is empty; saliency by gradients needs at least one batch")


def _gradients(module: torch.nn.Module, batch: object, loss_fn: Loss, index: int) -> Gradients:
    named = {n: p for n, p in module.named_parameters(remove_duplicate=False) if p.is_floating_point()}
    frozen = [p for p in named.values() if not p.requires_grad]
    if not named:
        raise DataError("the model has no floating-point parameters, so there are no gradients; use a criterion that needs none")
    for name, parameter in named.items():
        if parameter.is_inference():
            raise DataError(f"parameter {name} was made in inference mode and has no gradient; build the model outside it, or use l2")
    unique = list({id(p): p for p in named.values()}.values())
    inputs, target = split(batch)
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with mode(module, training=False), torch.enable_grad():
            loss = scalar_loss(loss_fn, apply(module, inputs), target, index)
            if not loss.requires_grad:
                raise DataError("the loss does not depend on the model's parameters; let the loss function use the output undetached")
            found = cast("Sequence[torch.Tensor | None]", torch.autograd.grad(loss, unique, allow_unused=True))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    by_id = {id(p): g for p, g in zip(unique, found, strict=True) if g is not None}
    result = {name: by_id[id(p)] for name, p in named.items() if id(p) in by_id}
    for name, gradient in result.items():
        if not bool(torch.isfinite(gradient).all()):
            raise DataError(f"batch {index}: the gradient of {name} is NaN or infinite; check that batch, or normalise the inputs")
    return result
