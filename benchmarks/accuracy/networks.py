"""The networks of the suite, plain PyTorch: a residual CNN, a vision transformer, a segmenter, a language model."""

import torch
from torch import nn
from torch.nn import functional as F

from .data import CONTEXT, LETTERS

CLASSES = 100


class Block(nn.Module):
    """Pre-norm transformer block; x: [N, tokens, width]. causal: a token sees itself and those before it."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).transpose(1, 2).reshape(batch, tokens, -1)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches of 4x4, learned positions, mean over tokens; x: [N, 1, 16, 32]; result: logits [N, CLASSES]."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.positions = nn.Parameter(torch.randn(1, 32, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads, hidden) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


class LanguageModel(nn.Module):
    """Characters [N, CONTEXT] to logits of each next one, [N, CONTEXT, LETTERS]."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, width)
        self.positions = nn.Parameter(torch.randn(1, CONTEXT, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads, hidden, causal=True) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, LETTERS)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.letters(letters) + self.positions)))


class Segmenter(nn.Module):
    """A small U-net (Ronneberger et al. 2015); x: [N, 1, 16, 32]; result: logits of each pixel, [N, 16, 32, 4]."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.down1, self.down2, self.down3 = _pair(1, fine), _pair(fine, middle), _pair(middle, coarse)
        self.up2, self.up1 = _pair(coarse + middle, middle), _pair(middle + fine, fine)
        self.head = nn.Conv2d(fine, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.down3(F.max_pool2d(b, 2))
        b = self.up2(torch.cat([F.interpolate(c, scale_factor=2.0), b], 1))
        a = self.up1(torch.cat([F.interpolate(b, scale_factor=2.0), a], 1))
        return self.head(a).permute(0, 2, 3, 1)


def _pair(inputs: int, width: int) -> nn.Sequential:
    first, second = nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width), nn.ReLU())
