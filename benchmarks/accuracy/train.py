"""Dense training and equal fine-tuning."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from billhook.api import trace
from billhook.ir.progress import Progress
from billhook.ir.weights import digest, read_weights, write_weights
from billhook.passes.recover import FinetuneConfig, finetune, recalibrate_batchnorm

from .data import Split
from .tasks import BATCH, RECOVERY, TASKS, Trained


class ClassesSecond(nn.Module):
    """A network with its classes as the second dimension, where torch's losses and our distillation expect them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs).movedim(-1, 1)


def trained(name: str, seed: int, home: Path, progress: Progress) -> Trained:
    """The trained dense network of a task, from scratch or as an earlier run with the same data and options left it."""
    recipe = TASKS[name]
    train, test = recipe.load(recipe.train, recipe.test)
    torch.manual_seed(seed)
    model = recipe.make()
    config = replace(recipe.training, seed=seed)
    key = digest({"inputs": train.inputs, **model.state_dict()})[:12]
    path = home / f"{name}-{seed}-{key}-{config.epochs}x{config.lr:g}.safetensors"
    if path.exists():
        read_weights(path, model)
    else:
        _train(model, None, train, config, seed, progress)
        home.mkdir(parents=True, exist_ok=True)
        write_weights(model, path)
    return Trained(name, seed, recipe, train, test, model.eval(), trace(model, train.inputs[:1]))


def recalibrate(model: nn.Module, dense: Trained) -> None:
    """Batch norms by ten training batches."""
    recalibrate_batchnorm(model, dense.train.loader(100), 10)


def recover(model: nn.Module, dense: Trained, progress: Progress) -> None:
    """The same short fine-tuning for everybody, with the dense network as the teacher."""
    config = replace(RECOVERY, seed=dense.seed)
    _train(model, dense.model, dense.train.first(dense.recipe.recovery), config, 1000 + dense.seed, progress)


def _train(model: nn.Module, teacher: nn.Module | None, data: Split, config: FinetuneConfig, order: int, progress: Progress) -> None:
    torch.manual_seed(order)
    wrapped = ClassesSecond(teacher) if teacher is not None else None
    finetune(ClassesSecond(model), wrapped, data.loader(BATCH, shuffle=True), config, F.cross_entropy, progress)
