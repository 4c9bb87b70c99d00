"""Fine-tuning with distillation, on accelerate."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.random import fork_rng  # pyright: ignore[reportUnknownVariableType]
from torch.utils import _pytree as pytree

from billhook.ir.errors import DataError
from billhook.ir.progress import Progress

from .batches import Loader, Loss, apply, mode, scalar_loss, size, split
from .recover_config import FinetuneConfig, TrainResult, autocast, learning_rate_share, make_optimizer
from .recover_distill import mixed_loss


def finetune(
    model: nn.Module,
    teacher: nn.Module | None,
    loader: Loader,
    config: FinetuneConfig | None = None,
    loss_fn: Loss = F.cross_entropy,
    progress: Progress | None = None,
) -> TrainResult:
    """Train `model` in place on batches (inputs, target), towards the targets and the outputs of `teacher` (if any).

    loss = (1 - distill) * loss_fn(output, target) + distill * divergence(output, teacher's output); without a teacher the
    first term alone. Repeatable: the same weights, data, seed and number of threads give the same result; the caller's
    random state is left alone, and so are the modes of both modules. The loader has a length, and a generator of its
    own only if its order should go on from run to run.

    Raises DataError: the loader is empty or has no length, or a loss is NaN or infinite; `model` is then left partly trained.
    """
    config = config or FinetuneConfig()
    steps = config.epochs * _epoch_length(loader)
    accelerator = Accelerator(cpu=next(model.parameters()).device.type == "cpu")
    start = time.perf_counter()
    evaluating = mode(teacher, training=False) if teacher is not None else nullcontext()
    with fork_rng(), _memory_format(model, config), evaluating, mode(model, training=True), torch.enable_grad():
        torch.default_generator.manual_seed(config.seed)
        run = _Run(accelerator, model, teacher, loader, config, loss_fn, steps)
        losses = [run.epoch(progress) for _ in range(config.epochs)]
    return TrainResult(run.step, time.perf_counter() - start, tuple(losses))


class _Run:
    """The state of one training: who takes part, and how far it has come."""

    def __init__(
        self,
        accelerator: Any,  # an Accelerator, whose methods have no types
        model: nn.Module,
        teacher: nn.Module | None,
        loader: Loader,
        config: FinetuneConfig,
        loss_fn: Loss,
        steps: int,
    ) -> None:
        self.accelerator, self.config, self.loss_fn, self.steps, self.step = accelerator, config, loss_fn, steps, 0
        self.teacher = teacher
        optimizer = make_optimizer(model.parameters(), config)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_share, steps=steps, warmup=config.warmup))
        self.model, self.optimizer, self.schedule = accelerator.prepare(model, optimizer, schedule)
        # Sharing out the batches is the only thing to prepare a loader for; a lone process keeps the user's own untouched.
        self.loader: Any = accelerator.prepare(loader) if accelerator.num_processes > 1 else loader

    def epoch(self, progress: Progress | None) -> float:
        """One pass over the data; returns its mean loss."""
        total, count = 0.0, 0
        for batch in self.loader:
            total += self._update(batch)
            count += 1
            self.step += 1
            if progress is not None:
                progress("fine-tuning", self.step, max(self.steps, self.step))
        if not count:
            raise DataError("the data loader is empty; fine-tuning needs at least one batch")
        return total / count

    def _update(self, batch: Any) -> float:
        inputs, target = pytree.tree_map(self._on_device, split(batch))
        with autocast(self.config.precision, self.accelerator.device):
            output = pytree.tree_map(_as_float32, apply(self.model, inputs))
            reference = self._reference(inputs)
        loss_fn = self.loss_fn if self.teacher is None else partial(mixed_loss, self.config, self.loss_fn, reference=reference)
        loss = scalar_loss(loss_fn, output, target, self.step)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.config.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _reference(self, inputs: Any) -> torch.Tensor | None:
        """The teacher's output; it is in evaluation mode throughout."""
        if self.teacher is None or not self.config.distill:
            return None
        with torch.no_grad():
            return apply(self.teacher, inputs)

    def _on_device(self, leaf: Any) -> Any:
        return leaf.to(self.accelerator.device) if isinstance(leaf, torch.Tensor) else leaf


def _as_float32(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bfloat16 else leaf


def _epoch_length(loader: Loader) -> int:
    count = size(loader)
    if not count:
        sized = hasattr(loader, "__len__")
        raise DataError(
            "the data loader is empty; fine-tuning needs at least one batch"
            if sized
            else "the data loader has no length, which the learning-rate schedule needs; give one with __len__"
        )
    return count


@contextmanager
def _memory_format(model: nn.Module, config: FinetuneConfig) -> Generator[None]:
    """Channels-last weights while training, if asked for, and row-major ones again after it."""
    convert = cast("Callable[..., object]", model.to)  # this overload has no type
    if config.channels_last:
        convert(memory_format=torch.channels_last)
    try:
        yield
    finally:
        if config.channels_last:
            convert(memory_format=torch.contiguous_format)
