"""The networks of the suite, plain PyTorch: a residual CNN and a vision transformer."""

import torch
from torch import nn
from torch.nn import functional as F

from billhook.demo.net import ResNet
from billhook.passes.recover import FinetuneConfig

from .data import CLASSES, SHAPE

NETWORKS = ("cnn", "vit")


class Block(nn.Module):
    """Pre-norm transformer block; x: [N, tokens, width]."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches of 4x4, learned positions, mean over tokens; x: [N, 1, 16, 32]; result: logits [N, CLASSES]."""

    def __init__(self, width: int = 64, depth: int = 2, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.positions = nn.Parameter(torch.randn(1, 32, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads, hidden) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


def build(name: str, seed: int) -> nn.Module:
    """A network with fresh weights of this seed."""
    torch.manual_seed(seed)
    return ViT() if name == "vit" else ResNet((32, 64, 96), (1, 1, 1), CLASSES)


def training(name: str, seed: int) -> FinetuneConfig:
    """How the dense network is trained."""
    epochs, lr = (12, 3e-3) if name == "vit" else (5, 3e-3)
    return FinetuneConfig(epochs=epochs, lr=lr, warmup=0.15, distill=0.0, seed=seed)


def example() -> torch.Tensor:
    """One input."""
    return torch.zeros(1, *SHAPE) + 0.5
