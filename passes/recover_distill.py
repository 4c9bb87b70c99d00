"""Distillation: the divergence from a dense teacher, added to the loss on the targets."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from billhook.ir.errors import DataError
from billhook.ir.progress import Progress

from .batches import Loader, Loss, apply, describe, mode, size, split
from .recover_config import FinetuneConfig, Precision, autocast


def distillation_loss(output: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(teacher || student) of the softmaxes at temperature T over dimension 1, averaged over all the others.

    Hinton, Vinyals and Dean 2015; the factor keeps the size of the gradients independent of the temperature.
    """
    student = F.log_softmax(output.float() / temperature, dim=1)
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, target, reduction="none", log_target=True).sum(1).mean()


def mixed_loss(config: FinetuneConfig, loss_fn: Loss, output: Any, target: Any, reference: Any) -> torch.Tensor:
    """(1 - distill) * loss on the target + distill * divergence from the teacher's output `reference`.

    Raises DataError: there is something to distil, but the outputs are not logits of shape [N, classes, ...].
    """
    if not config.distill:
        return loss_fn(output, target)
    if not isinstance(output, torch.Tensor) or not isinstance(reference, torch.Tensor) or output.dim() < 2:
        raise DataError(f"distillation needs logits [N, classes, ...] as the only output, not {describe(output)}; set distill=0")
    distance = distillation_loss(output, reference, config.temperature)
    return distance if config.distill == 1 else (1 - config.distill) * loss_fn(output, target) + config.distill * distance


def recorded_teacher(config: FinetuneConfig, loss_fn: Loss = F.cross_entropy) -> Loss:
    """The loss for batches whose target is a pair (target, teacher's output): several runs then share one pass of the teacher."""

    def loss(output: Any, target: Any) -> torch.Tensor:
        truth, reference = target
        return mixed_loss(config, loss_fn, output, truth, reference)

    return loss


def record(teacher: nn.Module, loader: Loader, progress: Progress | None = None, precision: Precision = "float32") -> torch.Tensor:
    """The teacher's outputs for the inputs of a loader, in its order, as one float32 tensor [N, ...].

    Raises DataError: the loader is empty.
    """
    total = size(loader)
    parts: list[torch.Tensor] = []
    device = next(teacher.parameters()).device
    with mode(teacher, training=False), torch.no_grad(), autocast(precision, device):
        for batch in loader:
            parts.append(apply(teacher, split(batch)[0]).float())
            if progress is not None:
                progress("teacher", len(parts), max(total, len(parts)))
    if not parts:
        raise DataError("the data loader is empty; the teacher needs at least one batch")
    return torch.cat(parts)
