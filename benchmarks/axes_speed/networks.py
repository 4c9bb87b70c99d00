"""What is timed: public models, and chains whose length is the point."""

import functools
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.coverage.support import cheap_construction, models, redraw

Made = tuple[nn.Module, torch.Tensor]


class Residual(nn.Module):
    """conv-bn-relu-conv-bn added to its input, `blocks` times."""

    def __init__(self, blocks: int, width: int = 8) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
            )
            for _ in range(blocks)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = (x + block(x)).relu()
        return self.head(x)


class Dense(nn.Module):
    """Every block reads the concatenation of all before it."""

    def __init__(self, blocks: int, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width * (k + 1), width, 3, padding=1) for k in range(blocks))
        self.head = nn.Conv2d(width * (blocks + 1), 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.stem(x)]
        for block in self.blocks:
            parts.append(block(torch.cat(parts, 1)).relu())
        return self.head(torch.cat(parts, 1))


def networks() -> dict[str, Callable[[], Made]]:
    """Builders by name, cheapest first."""
    made: dict[str, Callable[[], Made]] = {}
    for name in (
        "resnet18",
        "resnet50",
        "densenet121",
        "densenet201",
        "resnet152",
        "efficientnet_b7",
        "swin_b",
        "vit_b_16",
        "convnext_large",
        "regnet_y_32gf",
    ):
        made[name] = functools.partial(_public, name)
    for blocks in (10, 100, 1000, 3000):
        made[f"residual_{blocks}"] = functools.partial(_chain, Residual, blocks)
    for blocks in (10, 30, 60, 100):
        made[f"dense_{blocks}"] = functools.partial(_chain, Dense, blocks)
    return made


def _public(name: str) -> Made:
    side = 224 if name in {"vit_b_16", "swin_b"} else 64
    with cheap_construction():
        model = models.get_model(name, weights=None).eval()
    redraw(model)
    return model, torch.randn(2, 3, side, side)


def _chain(kind: Callable[[int], nn.Module], blocks: int) -> Made:
    return kind(blocks).eval(), torch.randn(2, 3, 4, 4)
