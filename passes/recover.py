"""Recovery: what gives a cut network its accuracy back."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from billhook.ir.errors import DataError
from billhook.ir.progress import Progress

from .batches import Loader, Loss
from .recover_batchnorm import recalibrate_batchnorm
from .recover_config import FinetuneConfig, TrainResult
from .recover_finetune import finetune

__all__ = ["Finetune", "FinetuneConfig", "TrainResult", "finetune", "recalibrate_batchnorm", "recover"]

CALIBRATION_BATCHES = 16  # for statistics alone, more data would cost time and change little

Finetune: TypeAlias = Callable[[nn.Module, nn.Module], Any]  # the user's own: (model to train in place, dense teacher)


def recover(
    model: nn.Module,
    teacher: nn.Module,
    loader: Loader | None,
    how: FinetuneConfig | Finetune | None,
    loss_fn: Loss = F.cross_entropy,
    progress: Progress | None = None,
) -> TrainResult | None:
    """Recalibrate the batch norms on the first batches of the data, if any, then fine-tune `model` in place.

    how: a config, the user's own function, or None to leave it at that. Returns what fine-tuning by a config did, else
    None. Raises DataError: a config without data, or weights that are NaN or infinite afterwards (naming the first).
    """
    if loader is not None:
        recalibrate_batchnorm(model, loader, CALIBRATION_BATCHES, progress)
    result: TrainResult | None = None
    if isinstance(how, FinetuneConfig):
        if loader is None:
            raise DataError("fine-tuning by a config needs a data loader; pass data=, or a function that brings its own")
        result = finetune(model, teacher, loader, how, loss_fn, progress)
    elif how is not None:
        how(model, teacher)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"after fine-tuning {name} holds NaN or infinite values; lower the learning rate")
    return result
