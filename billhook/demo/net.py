"""The demo's network: a ResNet (He et al. 2016) of plain PyTorch modules, which knows nothing of Billhook."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.random import fork_rng  # pyright: ignore[reportUnknownVariableType]

WIDTHS = (64, 128, 256)
BLOCKS = (2, 2, 2)
CLASSES = 100


class BasicBlock(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x, or its 1x1 projection where the shape changes.

    x: [N, inputs, H, W]; result: [N, width, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem with stride 2, stages of basic blocks (all but the first halve the map), global average, linear classifier.

    x: [N, 1, 32, 64], so the stages work on maps of 16x32, 8x16 and 4x8; result: logits [N, classes].
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, blocks: Sequence[int] = BLOCKS, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        stages: list[nn.Module] = []
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
            strides = [2 if stage else 1, *[1] * (depth - 1)]
            stages.append(nn.Sequential(*[BasicBlock(inputs if i == 0 else width, width, s) for i, s in enumerate(strides)]))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(F.relu(self.bn(self.stem(x))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def build(seed: int = 0) -> ResNet:
    """The demo's network with fresh weights; equal seeds give equal weights, and the global random state stays."""
    with fork_rng():
        torch.default_generator.manual_seed(seed)
        return ResNet()


def example() -> torch.Tensor:
    """One example input, [1, 1, 32, 64]."""
    return torch.zeros(1, 1, 32, 64)
