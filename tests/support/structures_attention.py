"""Attention and token mixing."""

import torch
import torch.nn.functional as F
from structures import structure
from torch import nn


class _Tokens(nn.Module):
    """Embedding of width 8 in front, head behind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 2)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(x + self.mix(x))


@structure((2, 6, 5), prunable="embed.out:8 qkv.out.0:2 qkv.out.1:6 qkv.out.2:6", form="view")
@structure((2, 6, 5), prunable="embed.out:8 qkv.out.0:2 qkv.out.1:6 qkv.out.2:6", form="chunk")
@structure((2, 6, 5), prunable="embed.out:8 qkv.out.0:2 qkv.out.1:6 qkv.out.2:6", form="unbind")
@structure((2, 6, 5), prunable="embed.out:8 qkv.out.0:2 qkv.out.1:6 qkv.out.2:6", form="heads")
@structure((2, 6, 5), prunable="embed.out:8 qkv.out.0:2 qkv.out.1:6 qkv.out.2:6", form="heads chunk")
@structure((2, 6, 5), prunable="embed.out:8 qkv.out.0:2 qkv.out.1:6 qkv.out.2:6", form="merged heads")
class FusedQKV(_Tokens):
    """One projection for query, key and value, taken apart in the usual ways; each has its own width within the one weight."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.qkv, self.out, self.form = nn.Linear(8, 3 * 2 * 6), nn.Linear(12, 8), form

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        if self.form == "chunk":
            q, k, v = (t.view(b, n, 2, 6).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        elif self.form == "unbind":
            q, k, v = self.qkv(x).reshape(b, n, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.form == "heads":
            qkv = self.qkv(x).view(b, n, 2, 3, 6)
            q, k, v = (qkv[:, :, :, i].transpose(1, 2) for i in range(3))
        elif self.form == "merged heads":
            parts = self.qkv(x).reshape(b, n, 3, 2, 6).permute(2, 0, 3, 1, 4).reshape(3, b * 2, n, 6).unbind(0)
            q, k, v = (t.view(b, 2, n, 6) for t in parts)
        elif self.form == "heads chunk":
            q, k, v = self.qkv(x).view(b, n, 2, 18).transpose(1, 2).chunk(3, -1)
        else:
            qkv = self.qkv(x).reshape(b, n, 3, 2, 6).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, 12))


@structure((2, 6, 5), prunable="embed.out:8 q.out.0:2 q.out.1:3 v.out.1:5")
class WrittenOutAttention(_Tokens):
    """Separate projections, value wider than key, scores by matmul and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 10), nn.Linear(10, 8)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (m(x).view(b, n, 2, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


@structure(
    (2, 6, 5), prunable="embed.out:8 attention.in_proj_weight.out.0:2 attention.in_proj_weight.out.1:4 attention.in_proj_weight.out.2:4"
)
class BuiltInAttention(_Tokens):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@structure((2, 6, 5), prunable="embed.out:8 q.out.0:2 q.out.1:2 q.out.2:4 v.out.1:4")
class GroupedQuery(_Tokens):
    """Four query heads share two key and value heads, repeated as Llama does, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 8)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, 4, 4).transpose(1, 2)
        k, v = (m(x).view(b, n, 2, 4).transpose(1, 2)[:, :, None].expand(b, 2, 2, n, 4).reshape(b, 4, n, 4) for m in (self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, n, 16))


@structure((2, 6, 5), prunable="embed.out:8 q.out.0:2 q.out.1:4 v.out.1:8")
class Rotary(_Tokens):
    """Rotary positions in halves, tables in buffers."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        angle = torch.outer(torch.arange(6.0), 0.5 ** torch.arange(4.0))
        self.register_buffer("cos", torch.cat([angle, angle], -1).cos())
        self.register_buffer("sin", torch.cat([angle, angle], -1).sin())

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x[..., :4], x[..., 4:]
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (m(x).view(b, n, 2, 8).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v)
        return self.out(y.transpose(1, 2).reshape(b, n, 16))


class _Rotary(_Tokens):
    """Two heads whose queries and keys are turned by angles that the forward pass computes from an arange."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def angle(self, x: torch.Tensor) -> torch.Tensor:
        return torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), 0.5 ** torch.arange(4, dtype=x.dtype))

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (m(x).view(b, n, 2, 8).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v)
        return self.out(y.transpose(1, 2).reshape(b, n, 16))


@structure((2, 6, 5), prunable="embed.out:8 q.out.0:2 q.out.1:4 v.out.1:8")
class ComputedRotary(_Rotary):
    """Interleaved rotary positions."""

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        angle, a, b = self.angle(x), x[..., ::2], x[..., 1::2]
        turned = torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
        return turned.flatten(-2)


@structure((2, 6, 5), prunable="embed.out:8 q.out.0:2 q.out.1:4 v.out.1:8")
class ComplexRotary(_Rotary):
    """Rotary positions as complex numbers, as Llama 4 turns its queries and keys."""

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        angle = self.angle(x)
        turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(turned).flatten(-2)


@structure((2, 6, 5), prunable="temperature.dim0:2 embed.out:8 qkv.out.1:4 qkv.out.2:4")
class ChannelAttention(_Tokens):
    """XCiT: attention between channels of a head, queries and keys normalised over the tokens, a temperature per head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.temperature = nn.Linear(8, 24), nn.Linear(8, 8), nn.Parameter(torch.ones(2, 1, 1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 4, 1).unbind(0)
        a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(-1)
        return self.out((a @ v).permute(0, 3, 1, 2).reshape(b, n, c))


@structure((2, 6, 5), prunable="embed.out:8 up.out:10")
class TokenMixer(_Tokens):
    """A linear map over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x.transpose(1, 2)))).transpose(1, 2)


@structure((2, 3, 8, 8), prunable="embed.out:4 reduce.out:6")
class WindowMerging(nn.Module):
    """Swin: windows, and four neighbours merged into channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 4, 1), nn.LayerNorm(16)
        self.inner, self.reduce, self.head = nn.Linear(4, 4), nn.Linear(16, 6, bias=False), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        windows = x.view(b, 2, h // 2, 2, w // 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h * w // 4, c)
        x = x + self.inner(windows).view(b, 2, 2, h // 2, w // 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.reduce(self.norm(x)).mean((1, 2)))


@structure((2, 6, 5), prunable="embed.out:8 gate.out:12")
class GatedMLP(_Tokens):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


@structure((2, 6, 5), prunable="embed.out:8 up.out:12", form="chunk")
@structure((2, 6, 5), prunable="embed.out:8 up.out:12", form="glu")
class PackedGate(_Tokens):
    """Value and gate from one projection."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.up, self.down, self.form = nn.Linear(8, 24), nn.Linear(12, 8), form

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "glu":
            return self.down(F.glu(self.up(x)))
        a, gate = self.up(x).chunk(2, -1)
        return self.down(a * gate.sigmoid())


@structure((2, 6, 5), prunable="token.dim2:8")
class ClassToken(_Tokens):
    """A learnt token and positions, the token read out by number."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 7, 8))
        self.mlp = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
        return self.head((x + self.mlp(x))[:, 0])
