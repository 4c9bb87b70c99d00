"""How values flow: several inputs and outputs, sharing, slices, masks, writes in place."""

import torch
import torch.nn.functional as F
from structures import structure
from torch import nn


@structure((2, 5), {"b": (2, 7)}, prunable="a.out:6 b.out:4 join.out:8")
class ManyInputs(nn.Module):
    """A positional and a keyword input, a dictionary of results."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.join, self.x, self.y = nn.Linear(5, 6), nn.Linear(7, 4), nn.Linear(10, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        z = self.join(torch.cat([self.a(a), self.b(b)], -1)).relu()
        return {"x": self.x(z), "y": self.y(z)}


def nested() -> dict[str, object]:
    return {"left": torch.randn(2, 5), "right": [torch.randn(2, 5), torch.randn(2, 5)]}


@structure(nested, prunable="a.out:6")
class DictInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, batch: dict[str, object]) -> torch.Tensor:
        first, second = batch["right"]  # type: ignore[misc]
        return self.c(self.a(batch["left"]) * self.a(first) + self.a(second))


@structure((2, 3, 8, 8), prunable="a.out:6")
class SharedModule(nn.Module):
    """One convolution called twice in a row, on its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shared, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.shared(F.relu(self.shared(F.relu(self.a(x))))))


@structure((2, 3, 8, 8), prunable="a.out:6")
class ChannelBuffers(nn.Module):
    """Buffers that carry channels: a scale, and a two-dimensional table added after broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
        self.register_buffer("scale", torch.randn(1, 6, 1, 1))
        self.register_buffer("table", torch.randn(6, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x) * self.scale + self.table)


@structure((2, 5), prunable="a.out:2 b.out:4")
class StridedSlices(nn.Module):
    """Every second channel, the last channels, negative bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 12), nn.Linear(6, 4), nn.Linear(3, 4)
        self.d, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x).relu()
        return self.head(self.b(x[:, ::2]) + self.c(x[:, -3:]) + self.d(x[:, 2:-6]))


@structure((2, 5), prunable="a.out:6")
class Where(nn.Module):
    """A choice between two branches by a mask that is computed, and one by a constant mask."""

    pattern: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)
        self.register_buffer("pattern", torch.tensor([True, False, True, True, False, False]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(x)
        return self.c(torch.where(a > b, a, b).masked_fill(self.pattern, 0.5))


@structure((2, 3, 8, 8), prunable="a.out.0:3 a.out.1:3")
class InPlace(nn.Module):
    """In-place activation and sum, a write into a slice, a buffer that is filled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 3, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x += 1.0
        x = F.relu_(x)
        y = torch.zeros_like(x)
        y[:, :3] = self.b(x)
        y[:, 3:] = x[:, 3:] * 2
        z = x * 0.5
        return self.c(z.mul_(2.0).add_(y))


@structure((2, 3, 4, 4), prunable="a.out:6 b.out:5")
class WrittenAfterLayer(nn.Module):
    """Layers whose results are written into: without their inputs they are only a bias, which must stay as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu_(self.c(F.relu_(self.b(F.relu_(self.a(x))))))


@structure((2, 4, 5), prunable="a.out:6")
class ShortConvolution(nn.Module):
    """Mamba's causal depthwise convolution, cropped by position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.conv, self.c = nn.Linear(5, 6), nn.Conv1d(6, 6, 3, padding=2, groups=6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x).transpose(1, 2)
        return self.c(F.silu(self.conv(x)[..., :4]).transpose(1, 2))


@structure((2, 5), prunable="a.out:4 b.out:3 b.in.0:3 c.in.1:2")
class RepeatedChannels(nn.Module):
    """Channels tiled and repeated in place: the copies are axes as well, since their reader has columns for each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(12, 3), nn.Linear(8, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x).relu()
        return self.head(self.b(x.repeat(1, 3)) + self.c(x.repeat_interleave(2, 1)))


@structure((2, 5), prunable="a.out:6")
class StackedSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.stack([self.a(x), self.b(x)]).sum(0))


@structure((2, 5), prunable="a.out:6")
class StackedFlat(nn.Module):
    """Channels interleaved by stacking and flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.stack([self.a(x), self.b(x)], -1).flatten(1))


@structure((2, 5), prunable="a.out:6 b.out:6 c.out:6")
class ChannelStatistics(nn.Module):
    """Mean, softmax and maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(x)
        return self.d(b.softmax(-1)) + a.mean(-1, keepdim=True) + self.c(x).amax(-1, keepdim=True)


@structure((2, 5), prunable="b.out:3 c.out:6")
class Permuted(nn.Module):
    """Channels reordered: a roll moves two segments; no axis may follow a constant permutation or a flip by guess."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 5, 4]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)[:, self.order] + self.a(x).flip(1)
        return self.d(self.c(self.b(x).roll(1, 1)))


@structure((2, 5), prunable="b.out:6", how="flip")
@structure((2, 5), prunable="a.out.0:2 a.out.1:4 b.out:6", how="roll")
class Reordered(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.c, self.how = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.a(x))
        return self.c(F.silu(self.b(x.flip(1) if self.how == "flip" else x.roll(-2, 1))))


@structure((2, 5), prunable="a.out:2 u.out:3")
class Cropped(nn.Module):
    """More than a concatenation: segments shared between two concatenations at different places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.u, self.v = nn.Linear(5, 4), nn.Linear(5, 6), nn.Linear(10, 3), nn.Linear(10, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x).relu(), self.b(x).relu()
        return self.head(self.u(torch.cat([a, b], 1)) + self.v(torch.cat([b, a], 1) * torch.cat([a, b], 1)))


@structure((2, 3, 8, 8), prunable="a.out:6 fine.out:5")
class RegionsByLevel(nn.Module):
    """Detectors with regions: data say which rows come from which feature map, so only a concrete trace captures them."""

    level: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fine, self.coarse = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), nn.Conv2d(6, 5, 1)
        self.c = nn.Linear(5, 2)
        self.register_buffer("level", torch.tensor([0, 1, 1, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x).relu()
        rows = y.new_zeros(4, 5)
        for level, found_map in enumerate((self.fine(y), self.coarse(y))):
            found = torch.where(self.level.eq(level))[0]
            rows[found] = found_map.mean((2, 3)).repeat(2, 1)[found]
        return self.c(rows)


@structure((2, 5), prunable="a.out:6 b.out:4")
class NothingOf(nn.Module):
    """Slices that are empty at the sizes of the example, as tables of positions without class tokens have them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 4), nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, z = self.a(x), self.b(x)
        return self.c(torch.cat([y[:, :0], y, z[:, 4:], z, z.narrow(1, 0, 0)], 1))
