"""Options and result of fine-tuning, and the two things that follow from them alone: optimizer and learning-rate schedule."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from billhook.ir.errors import OptionError

OptimizerName = Literal["sgd", "adamw"]
Precision = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """How to fine-tune.

    lr: peak learning rate, reached after a linear warm-up over the share `warmup` of all steps, then a half cosine to 0.
    optimizer: "sgd" (Nesterov, `momentum`) or "adamw"; `weight_decay` acts on matrices and filters only, not on biases and
    norms. distill: weight of the divergence from the teacher, the rest goes to the loss on the targets; temperature: of
    both softmaxes in it. clip: largest gradient norm, 0 for no limit. precision: of the arithmetic, "bfloat16" by
    autocast, "auto" for that only where the processor computes it natively; the weights stay float32. channels_last:
    train in that memory format, often faster for convolutions on CPUs. seed: of dropout and of the loader's shuffling,
    unless the loader has a generator of its own.
    """

    epochs: int = 3
    lr: float = 1e-3
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.05
    warmup: float = 0.1
    distill: float = 0.5
    temperature: float = 2.0
    clip: float = 0.0
    precision: Precision = "float32"
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "lr": (self.lr > 0, "greater than 0"),
            "optimizer": (self.optimizer in ("sgd", "adamw"), "sgd or adamw"),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup": (0 <= self.warmup < 1, "a share from 0 to below 1"),
            "distill": (0 <= self.distill <= 1, "a share from 0 to 1"),
            "temperature": (self.temperature > 0, "greater than 0"),
            "clip": (self.clip >= 0, "0 (no limit) or more"),
            "precision": (self.precision in ("float32", "bfloat16", "auto"), "float32, bfloat16 or auto"),
        }
        for name, (fine, allowed) in checks.items():
            if not fine:
                raise OptionError(f"fine-tuning: {name} must be {allowed}, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What fine-tuning did: number of optimizer steps, seconds, and the mean loss of every epoch."""

    steps: int
    seconds: float
    losses: tuple[float, ...]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which to compute at a precision, on a device."""
    native = _native_bfloat16(device) if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def make_optimizer(parameters: Iterable[nn.Parameter], config: FinetuneConfig) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters, without weight decay on vectors (biases, norms)."""
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr)


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a half cosine (Loshchilov and Hutter 2017)."""
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(steps - rising, 1))))
