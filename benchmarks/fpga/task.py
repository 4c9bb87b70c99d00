"""Two networks of CIFAR size and a task for them: scikit-learn's scans of digits, drawn at 32x32 in colour with noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from torch import nn
from torch.nn import functional as F

from billhook.demo.net import BasicBlock

NOISE = 0.6
TRAIN = 1300


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2, with one block per stage: [N, 3, 32, 32] to logits [N, 10]."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential(
            BasicBlock(widths[0], widths[0], 1), BasicBlock(widths[0], widths[1], 2), BasicBlock(widths[1], widths[2], 2)
        )
        self.head = nn.Linear(widths[2], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(F.relu(self.bn(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class EncoderBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class SmallViT(nn.Module):
    """A vision transformer with patches of 4x4 and a class token: [N, 3, 32, 32] to logits [N, 10]."""

    def __init__(self, width: int = 32, depth: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


@dataclass(frozen=True, slots=True)
class Case:
    """A network and how it is trained. steps, tuning: before it is cut, and after.

    fresh: noise is drawn anew for every batch; a transformer learns the noise of so few pictures by heart.
    """

    make: Callable[[], nn.Module]
    steps: int
    tuning: int
    fresh: bool = False


NETWORKS = {"resnet8": Case(CifarResNet, 200, 80), "vit": Case(SmallViT, 1500, 300, fresh=True)}


class Digits:
    """clean, pictures (with noise): float32 [N, 3, 32, 32]; labels: int64 [N]."""

    def __init__(self, *, train: bool) -> None:
        loaded: Any = load_digits()
        part = slice(0, TRAIN) if train else slice(TRAIN, None)
        scans = torch.from_numpy(loaded.images[part].astype(np.float32) / 8 - 1)[:, None]
        generator = torch.Generator().manual_seed(int(train))
        self.clean = F.interpolate(scans, (32, 32), mode="bilinear").repeat(1, 3, 1, 1)
        self.pictures = self.clean + NOISE * torch.randn(self.clean.shape, generator=generator)
        self.labels = torch.from_numpy(loaded.target[part].astype(np.int64))

    def batches(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(self.pictures.split(size), self.labels.split(size), strict=True))

    def samples(self, count: int) -> Iterator[tuple[torch.Tensor, int]]:
        """Single pictures [1, 3, 32, 32] with their labels."""
        for picture, label in zip(self.pictures[:count], self.labels[:count].tolist(), strict=True):
            yield picture[None], label


def train(model: nn.Module, data: Digits, steps: int, batch: int = 32, rate: float = 2e-3, *, fresh: bool = False) -> None:
    """Train in place; the model ends in evaluation mode. Equal seeds give equal weights. fresh: noise is drawn for every batch."""
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(data.labels), (batch,))
        pictures = data.clean[rows] + NOISE * torch.randn(batch, *data.clean.shape[1:]) if fresh else data.pictures[rows]
        loss = F.cross_entropy(model(pictures), data.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


def accuracy(model: nn.Module, data: Digits, count: int) -> float:
    """Of the float model, on the first `count` pictures."""
    with torch.no_grad():
        return float((model(data.pictures[:count]).argmax(1) == data.labels[:count]).float().mean())
