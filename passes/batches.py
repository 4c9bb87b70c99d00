"""Batches of the user's data: what a loader yields, and how it is fed to a model.

A batch is a pair (inputs, target). `inputs` is one tensor, a tuple or list of positional arguments, or a mapping of keyword
arguments; `target` is whatever the loss takes beside the model's output.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from billhook.ir.errors import DataError

Loader: TypeAlias = Iterable[Any]
Loss: TypeAlias = Callable[[Any, Any], torch.Tensor]  # (output of the model, target) -> scalar


def split(batch: Any) -> tuple[Any, Any]:
    """(inputs, target) of a batch. Raises DataError if it is not such a pair."""
    if not isinstance(batch, Sequence) or isinstance(batch, (str, bytes)) or len(cast("Sequence[Any]", batch)) != 2:
        raise DataError(f"the data loader yields {describe(batch)}; a batch must be a pair (inputs, target)")
    inputs, target = cast("Sequence[Any]", batch)
    return inputs, target


def apply(model: nn.Module, inputs: Any) -> Any:
    """The model's output for the inputs of one batch. Raises DataError where they do not fit the model."""
    try:
        if isinstance(inputs, Mapping):
            return model(**cast("Mapping[str, Any]", inputs))
        if isinstance(inputs, (tuple, list)):
            return model(*cast("Sequence[Any]", inputs))
        return model(inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as failure:
        raise DataError(f"the model does not accept a batch of the data loader ({describe(inputs)}): {first_line(failure)}") from failure


def first_line(failure: Exception) -> str:
    """The first line of somebody else's error message."""
    return (str(failure).strip().splitlines() or [type(failure).__qualname__])[0]


def describe(value: Any) -> str:
    """Shapes of the tensors in a nested value, for a message."""
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in cast("Mapping[Any, Any]", value).items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(describe(v) for v in cast("Sequence[Any]", value)) + ")"
    return type(value).__qualname__


def scalar_loss(loss_fn: Loss, output: Any, target: Any, batch: int) -> torch.Tensor:
    """The loss of one batch. Raises DataError, naming the batch, where it fails or is not one finite number."""
    try:
        loss: Any = loss_fn(output, target)
    except (RuntimeError, TypeError, ValueError, IndexError) as failure:
        shapes = f"output {describe(output)}, target {describe(target)}"
        raise DataError(f"the loss function fails on batch {batch} ({shapes}): {first_line(failure)}") from failure
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise DataError(f"the loss of batch {batch} is {describe(loss)}; the loss function must return one number")
    if not bool(torch.isfinite(loss)):
        raise DataError(f"the loss of batch {batch} is {float(loss.detach())}; check that batch for bad inputs, or lower the learning rate")
    return loss


def size(loader: Loader) -> int:
    """Number of batches, 0 where the loader does not know it."""
    try:
        return len(cast("Any", loader))
    except TypeError:
        return 0


@contextmanager
def mode(module: nn.Module, training: bool) -> Generator[None]:
    """Put a module (and all inside it) into training or evaluation mode, and restore every module's own mode after."""
    before = {inner: inner.training for inner in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        module.train(before[module])
        for inner, flag in before.items():
            inner.training = flag
