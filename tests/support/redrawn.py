"""Parameters redrawn so that no error can hide: no zero-initialised branch, no tiny layer scale, statistics that matter."""

import contextlib
from collections.abc import Generator
from typing import Any

import torch

_INITIALISERS = (
    "kaiming_uniform_",
    "kaiming_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "trunc_normal_",
    "normal_",
    "uniform_",
    "orthogonal_",
)


@contextlib.contextmanager
def cheap_construction() -> Generator[None]:
    """Skip torch's initialisers while a model is built: its parameters are redrawn anyway."""
    saved = {name: getattr(torch.nn.init, name) for name in _INITIALISERS}

    def skip(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    for name in saved:
        setattr(torch.nn.init, name, skip)
    try:
        yield
    finally:
        for name, function in saved.items():
            setattr(torch.nn.init, name, function)


def redraw(model: torch.nn.Module, seed: int = 0, gain: float = 1.0) -> None:
    """Weights of the given gain, scales around one, small biases, running statistics away from zero and one."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape, dtype=torch.float32).uniform_(low, high, generator=generator))

    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if not tensor.is_floating_point():
                continue
            if tensor.dim() >= 2 and min(tensor.shape[:2]) > 1:
                bound = gain * (3.0 / (tensor.numel() / tensor.shape[0])) ** 0.5
                uniform(tensor, -bound, bound)
            elif name.endswith("bias"):
                uniform(tensor, -0.2, 0.2)
            else:
                uniform(tensor, 0.5, 1.5)
        for name, tensor in model.named_buffers():
            if name.endswith("running_mean"):
                uniform(tensor, -0.2, 0.2)
            elif name.endswith("running_var"):
                uniform(tensor, 0.5, 1.5)
