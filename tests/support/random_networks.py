"""Random networks out of the supported operators: a recipe of small integers, so that hypothesis can shrink what fails.

A network holds a pool of feature maps [2, channels, 4, 4]. Each step takes one or two of them and adds one; a step that
does not fit (an odd width, two widths that differ) becomes a convolution that makes it fit. The head reads every map.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

Step = tuple[int, int, int, int]
Layer = TypeVar("Layer", bound=nn.Module)
Maker = Callable[["RandomNetwork", torch.Tensor, torch.Tensor, int, int], torch.Tensor]

OPERATORS: list[Maker] = []
SIDE = 4


def recipes(longest: int = 8) -> st.SearchStrategy[list[Step]]:
    """Lists of (operator, first value, second value, width), for `RandomNetwork`."""
    step = st.tuples(st.integers(0, len(OPERATORS) - 1), st.integers(0, 7), st.integers(0, 7), st.integers(0, 3))
    return st.lists(step, min_size=1, max_size=longest)


class RandomNetwork(nn.Module):
    """Layers are made on the first run, in order, and found again by their number on later ones."""

    def __init__(self, recipe: list[Step]) -> None:
        super().__init__()
        self.recipe, self.layers, self.made = recipe, nn.ModuleList(), 0
        torch.default_generator.manual_seed(0)
        self.run(torch.randn(2, 3, SIDE, SIDE))

    def layer(self, make: Callable[[], Layer]) -> Layer:
        self.made += 1
        if self.made > len(self.layers):
            self.layers.append(make())
        return cast(Layer, self.layers[self.made - 1])

    def conv(self, x: torch.Tensor, out: int, size: int = 1, groups: int = 1) -> torch.Tensor:
        return self.layer(lambda: nn.Conv2d(x.shape[1], out, size, padding=size // 2, groups=groups))(x)

    def multiple(self, x: torch.Tensor, of: int) -> torch.Tensor:
        return x if x.shape[1] % of == 0 else self.conv(x, of * (x.shape[1] // of + 1))

    def like(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return x if x.shape[1] == other.shape[1] else self.conv(x, other.shape[1])

    def run(self, x: torch.Tensor) -> torch.Tensor:
        self.made = 0
        pool = [self.conv(x, 8, 3), self.conv(x, 6, 3)]
        for operator, i, j, k in self.recipe:
            pool.append(OPERATORS[operator](self, pool[-1 - i % len(pool)], pool[-1 - j % len(pool)], (4, 6, 8, 12)[k], k))
        read = [self.conv(F.silu(v), 2) for v in pool]
        return torch.stack([v.mean((2, 3)) for v in read]).sum(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def operator(function: Maker) -> Maker:
    OPERATORS.append(function)
    return function


@operator
def convolution(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return F.silu(net.conv(x, width, 3))


@operator
def grouped(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return net.conv(net.multiple(x, 2), width, 3, groups=2)


@operator
def depthwise(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return net.conv(x, x.shape[1] * (1 + k % 2), 3, groups=x.shape[1])


@operator
def transposed(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return F.avg_pool2d(net.layer(lambda: nn.ConvTranspose2d(x.shape[1], width, 2, 2))(x), 2)


@operator
def normalised(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    x = net.multiple(x, 2)
    c = x.shape[1]
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.BatchNorm2d(c),
        lambda: nn.GroupNorm(2, c),
        lambda: nn.LayerNorm(c),
        lambda: nn.InstanceNorm2d(c, affine=True),
    ]
    norm = net.layer(kinds[k])
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if k == 2 else norm(x)


@operator
def added(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return x + net.like(y, x)


@operator
def multiplied(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    gate = net.like(y, x)
    return x * (gate.mean((2, 3), keepdim=True) if k % 2 else gate).sigmoid()


@operator
def concatenated(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return torch.cat([x, y] if k % 2 else [y, x, y], 1) if x.shape[1] + y.shape[1] < 40 else x


@operator
def chunked(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    a, b = net.multiple(x, 2).chunk(2, 1)
    return a * b.sigmoid() if k % 2 else torch.cat([b, F.silu(a)], 1)


@operator
def split_unevenly(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    at = min(1 + k, x.shape[1] - 1)
    a, b = torch.split(x, [at, x.shape[1] - at], 1)
    return torch.cat([F.silu(a), b, a], 1)


@operator
def sliced(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    x = net.multiple(x, 2)
    return [x[:, 1:], x[:, :-2], x[:, ::2], x[:, 1::2]][k] if x.shape[1] > 3 else x


@operator
def shuffled(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    x = net.multiple(x, 2)
    b, c, h, w = x.shape
    return F.channel_shuffle(x, 2) if k % 2 else x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


@operator
def pixel_shuffled(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    if k % 2:
        return net.conv(F.pixel_unshuffle(x, 2), width).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return F.avg_pool2d(F.pixel_shuffle(net.multiple(x, 4), 2), 2)


@operator
def padded(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return F.pad(x, (0, 0, 0, 0, k, 1))


@operator
def pooled(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return F.max_pool2d(x, 3, 1, 1) if k % 2 else x - F.adaptive_avg_pool2d(x, 1)


@operator
def flattened(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    flat = net.layer(lambda: nn.Linear(x.shape[1] * SIDE * SIDE, width))(x.flatten(1))
    return flat[:, :, None, None].expand(-1, -1, SIDE, SIDE)


@operator
def attention(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    b, c, h, w = x.shape
    t = x.flatten(2).transpose(1, 2)
    heads, deep = (1, 2, 2, 4)[k], 3
    qkv = net.layer(lambda: nn.Linear(c, 3 * heads * deep))(t).reshape(b, h * w, 3, heads, deep).permute(2, 0, 3, 1, 4)
    if k % 2:
        mixed = (qkv[0] @ qkv[1].transpose(-2, -1) / deep**0.5).softmax(-1) @ qkv[2]
    else:
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
    out = net.layer(lambda: nn.Linear(heads * deep, c))(mixed.transpose(1, 2).reshape(b, h * w, heads * deep))
    return x + out.transpose(1, 2).reshape(b, c, h, w)


@operator
def shared(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    module = net.layer(lambda: nn.Conv2d(x.shape[1], x.shape[1], 1))
    return module(F.silu(module(x)))


@operator
def tied(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    """An encoder and the decoder that is its transpose."""
    module = net.layer(lambda: nn.Linear(x.shape[1], width))
    inner = F.silu(module(x.movedim(1, -1)))
    return (inner @ module.weight).movedim(-1, 1)


@operator
def chosen(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    y = net.like(y, x)
    return torch.where(x > y, x, y * 0.5)


@operator
def softened(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    return [x.softmax(1), F.normalize(x, dim=1), x - x.amax(1, keepdim=True), x / (1 + x.mean(1, keepdim=True).abs())][k]


@operator
def repeated(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    if x.shape[1] > 12:
        return x
    return x.repeat(1, 2, 1, 1) if k % 2 else x.repeat_interleave(2, 1)


@operator
def contracted(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    """Similarities of two maps over space, applied to one of them."""
    scores = torch.einsum("bchw,bdhw->bcd", x, y) / (SIDE * SIDE)
    return torch.einsum("bcd,bdhw->bchw", scores.tanh(), y)


@operator
def written(net: RandomNetwork, x: torch.Tensor, y: torch.Tensor, width: int, k: int) -> torch.Tensor:
    y = net.like(y, x)
    out = torch.zeros_like(x)
    out[:, : 1 + k] = y[:, : 1 + k]
    out.add_(x).sub_(y)
    return F.silu(out, inplace=True)
