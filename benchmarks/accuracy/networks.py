"""The networks of the suite, plain PyTorch: a residual CNN, a vision transformer, a segmenter, a language model."""

import torch
from torch import nn
from torch.nn import functional as F

from .data import CONTEXT, LETTERS

CLASSES, DIGITS = 100, 10


class Block(nn.Module):
    """Pre-norm transformer block; x: [N, tokens, width]; mask: is added to the attention's scores, [tokens, tokens]."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, tokens, -1)
        x = x + self.proj(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches of 4x4, learned positions, mean over tokens; x: [N, 1, 16, 32]; result: logits [N, DIGITS]."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.positions = nn.Parameter(torch.randn(1, 32, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads, hidden) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, DIGITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


class LanguageModel(nn.Module):
    """Characters [N, CONTEXT] to logits of each next one, [N, CONTEXT, LETTERS]."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, width)
        self.positions = nn.Parameter(torch.randn(1, CONTEXT, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width, heads, hidden) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, LETTERS)
        self.register_buffer("past", torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1), persistent=False)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        x = self.letters(letters) + self.positions
        for block in self.blocks:
            x = block(x, self.past)
        return self.head(self.norm(x))


class Segmenter(nn.Module):
    """A small feature pyramid (Lin et al. 2017); x: [N, 1, 16, 32]; result: logits of each pixel, [N, 16, 32, 4]."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.down1, self.down2, self.down3 = _pair(1, fine), _pair(fine, middle), _pair(middle, coarse)
        self.side2, self.side1 = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        self.last = _pair(fine, fine)
        self.head = nn.Conv2d(fine, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.down3(F.max_pool2d(b, 2))
        b = b + F.interpolate(self.side2(c), scale_factor=2.0)
        a = a + F.interpolate(self.side1(b), scale_factor=2.0)
        return self.head(self.last(a)).permute(0, 2, 3, 1)


def _pair(inputs: int, width: int) -> nn.Sequential:
    first, second = nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width), nn.ReLU())
