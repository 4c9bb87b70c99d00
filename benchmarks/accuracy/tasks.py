"""The tasks: a network, its data, and how it is trained and recovered."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from billhook.demo.net import ResNet
from billhook.ir.program import Program
from billhook.passes.recover import FinetuneConfig

from . import data
from .data import Split
from .networks import CLASSES, LanguageModel, Segmenter, ViT

BATCH = 64
RECOVERY = FinetuneConfig(epochs=1, lr=1e-3, distill=0.7, temperature=3.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """make: fresh weights; load: (training, test) data of so many samples; recovery: training samples of one fine-tuning."""

    make: Callable[[], nn.Module]
    load: Callable[[int, int], tuple[Split, Split]]
    train: int
    test: int
    training: FinetuneConfig
    recovery: int


TASKS = MappingProxyType(
    {
        "cnn": Recipe(
            lambda: ResNet((24, 32, 48), (2, 2, 2), CLASSES),
            *(data.pictures, 4000, 1500),
            FinetuneConfig(epochs=6, lr=3e-3, warmup=0.15, distill=0.0),
            1280,
        ),
        "vit": Recipe(
            ViT,
            *(data.tens, 4000, 1500),
            FinetuneConfig(epochs=8, lr=2e-3, warmup=0.15, distill=0.0),
            1280,
        ),
        "segmenter": Recipe(
            Segmenter,
            *(data.shapes, 2000, 500),
            FinetuneConfig(epochs=4, lr=3e-3, warmup=0.15, distill=0.0),
            640,
        ),
        "lm": Recipe(
            LanguageModel,
            *(data.text, 24000, 500),
            FinetuneConfig(epochs=2, lr=4e-3, warmup=0.1, distill=0.0),
            1920,
        ),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A task with its data and one trained network."""

    name: str
    seed: int
    recipe: Recipe
    train: Split
    test: Split
    model: nn.Module
    program: Program

    @property
    def example(self) -> torch.Tensor:
        """One input."""
        return self.train.inputs[:1]
