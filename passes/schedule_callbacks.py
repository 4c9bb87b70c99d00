"""Masked training inside other people's trainers: when it begins and ends. Everything between happens in the optimizer's hooks.

Neither trainer is a dependency: the classes are made when asked for.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import nn

from billhook.ir.errors import ToolchainError

from .schedule_training import MaskedTraining

Make: TypeAlias = Callable[[nn.Module, torch.optim.Optimizer], MaskedTraining]  # from the trainer's model and optimizer
Done: TypeAlias = Callable[[MaskedTraining], None]  # called under the last masks: the place to ask for the plan


class Lifetime:
    """Begins a masked training with a trainer's model and optimizer, and ends it."""

    def __init__(self, make: Make, done: Done) -> None:
        self._make, self._done = make, done
        self._training: MaskedTraining | None = None

    def begin(self, model: nn.Module, optimizer: Any) -> None:
        """Put the hooks into the optimizer that a wrapper such as accelerate's stands for."""
        inner = getattr(optimizer, "optimizer", optimizer)
        self._training = self._make(model, inner).__enter__()

    def end(self) -> None:
        """Report, and leave the full weights in the model."""
        if self._training is not None:
            self._done(self._training)
            self._training.__exit__(None, None, None)
            self._training = None


def hugging_face_callback(make: Make, done: Done) -> Any:
    """A `transformers.TrainerCallback`. Raises ToolchainError where transformers is not installed."""
    base: Any = _imported("transformers", "transformers").TrainerCallback
    life = Lifetime(make, done)

    class Callback(base):  # pyright: ignore[reportUntypedBaseClass]
        def on_train_begin(self, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
            life.begin(kwargs["model"], kwargs["optimizer"])

        def on_train_end(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
            life.end()

    return Callback()


def lightning_callback(make: Make, done: Done) -> Any:
    """A `lightning.pytorch.Callback` for a module with one optimizer. Raises ToolchainError where lightning is not installed."""
    base: Any = _imported("lightning.pytorch", "lightning").Callback
    life = Lifetime(make, done)

    class Callback(base):  # pyright: ignore[reportUntypedBaseClass]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            life.begin(pl_module, trainer.optimizers[0])

        def on_train_end(self, _trainer: Any, _pl_module: Any) -> None:
            life.end()

    return Callback()


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise ToolchainError(f"this callback needs {package}, which is not installed; run pip install {package}") from missing
