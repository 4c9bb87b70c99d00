"""Convolutional constructs."""

from typing import Any

import torch
import torch.nn.functional as F
from structures import structure
from torch import nn


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(o), nn.SiLU())


@structure((2, 3, 16, 16), prunable="a.0.out:4 b.0.out:6 c.0.out:8 up1.out:6 d1.0.out:6 up2.out:4 d2.0.out:4")
class UNet(nn.Module):
    """Skip concatenations and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 6), conv(6, 8)
        self.up1, self.d1 = nn.ConvTranspose2d(8, 6, 2, 2), conv(12, 6)
        self.up2, self.d2 = nn.ConvTranspose2d(6, 4, 2, 2), conv(8, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d1(torch.cat([self.up1(c), b], 1))
        return self.head(self.d2(torch.cat([a, self.up2(d)], 1)))


@structure((2, 3, 8, 8), prunable="stem.0.out:6 cv1.0.out.0:4 cv1.0.out.1:4 cv2.0.out:6 m.0.0.0.out:4 m.1.0.0.out:4")
class C2f(nn.Module):
    """YOLOv8: split in half, a chain of bottlenecks on one half, all stages concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cv1, self.cv2 = conv(3, 6), conv(6, 8, 1), conv(16, 6, 1)
        self.m = nn.ModuleList(nn.Sequential(conv(4, 4), conv(4, 4)) for _ in range(2))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(self.stem(x)).chunk(2, 1))
        for m in self.m:
            parts.append(parts[-1] + m(parts[-1]))
        return self.head(self.cv2(torch.cat(parts, 1)))


@structure((2, 3, 8, 8), prunable="cv1.0.out.0:4 cv1.0.out.1:4 cv2.0.out:6 join.0.out:4 left.0.out:2 right.0.out:2 m.0.0.out:2")
class C3k2(nn.Module):
    """YOLO11: as C2f, with an inner block of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(3, 8, 1), conv(12, 6, 1)
        self.left, self.right, self.join, self.m = conv(4, 2, 1), conv(4, 2, 1), conv(4, 4, 1), nn.Sequential(conv(2, 2), conv(2, 2))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.cv1(x).split((4, 4), 1)
        left = self.left(b)
        c = self.join(torch.cat((left + self.m(left), self.right(b)), 1))
        return self.head(self.cv2(torch.cat((a, b, c), 1)))


@structure((2, 3, 8, 8), prunable="cv1.0.out:4 cv2.0.out:5")
class SPPF(nn.Module):
    """A value concatenated with three poolings of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1, self.cv2, self.head = conv(3, 4, 1), conv(16, 5, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(F.max_pool2d(y[-1], 3, 1, 1))
        return self.head(self.cv2(torch.cat(y, 1)))


@structure((2, 3, 4, 4), prunable="stem.0.out:6 box.out.1:5")
class DFLHead(nn.Module):
    """YOLO's box head: 4 sides times 5 bins, softmax over the bins, expectation by a fixed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.box, self.cls = conv(3, 6), nn.Conv2d(6, 20, 1), nn.Conv2d(6, 3, 1)
        self.dfl = nn.Conv2d(5, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        b, _, h, w = x.shape
        box = self.box(x).view(b, 4, 5, h * w).transpose(2, 1).softmax(1)
        return self.dfl(box).view(b, 4, h * w), self.cls(x)


@structure((2, 3, 4, 4), prunable="a.0.out.0:4")
class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), nn.PixelShuffle(2), nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@structure((2, 3, 8, 8), prunable="a.0.out:4")
class PixelUnshuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), nn.PixelUnshuffle(2), nn.Conv2d(16, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@structure((2, 3, 8, 8), prunable="a.0.out.0:2 a.0.out.1:4 g.out.1:4", built_in=False)
@structure((2, 3, 8, 8), prunable="a.0.out.0:2 a.0.out.1:4 g.out.1:4", built_in=True)
class ChannelShuffle(nn.Module):
    """By hand, and by the built-in module."""

    def __init__(self, built_in: bool) -> None:
        super().__init__()
        self.a, self.c, self.built_in = conv(3, 8), nn.Conv2d(8, 2, 3), built_in
        self.g = nn.Conv2d(8, 8, 3, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.g(self.a(x))
        if self.built_in:
            return self.c(F.channel_shuffle(x, 2))
        b, c, h, w = x.shape
        return self.c(x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))


@structure((2, 3, 8, 8), prunable="a.0.out.0:2 a.0.out.1:4 b.out.1:4", groups=2, out=8)
@structure((2, 3, 8, 8), prunable="a.0.out.0:4 a.0.out.1:2", groups=4, out=4)
class Grouped(nn.Module):
    """Grouped convolution both ways: fewer groups, and thinner groups."""

    def __init__(self, groups: int, out: int) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), nn.Conv2d(8, out, 3, groups=groups), nn.Conv2d(out, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.out.1:2")
class DepthwiseMultiplier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.out:8", groups=1)
@structure((2, 3, 8, 8), prunable="a.0.out.0:2 a.0.out.1:2 b.out:4", groups=2)
@structure((2, 3, 8, 8), prunable="a.0.out:4 b.out:2", groups=4)
class Transposed(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), nn.ConvTranspose2d(4, 8, 3, groups=groups), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@structure((2, 3, 8, 8), prunable="a.out.0:2 a.out.1:4", norm="group")
@structure((2, 3, 8, 8), prunable="a.out:8", norm="instance")
@structure((2, 3, 8, 8), prunable="a.out:8", norm="layer")
@structure((2, 3, 8, 8), prunable="a.out:8", norm="rms")
@structure((2, 3, 8, 8), prunable="a.out:8", norm="response")
class Normed(nn.Module):
    """Normalisations between two convolutions; "response" is ConvNeXt V2's, written out."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.a, self.c, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), norm
        made = {"group": nn.GroupNorm(2, 8), "instance": nn.InstanceNorm2d(8, affine=True, track_running_stats=True), "rms": nn.RMSNorm(8)}
        self.n: Any = made.get(norm, nn.LayerNorm(8))

    def forward(self, x: Any) -> torch.Tensor:
        x = self.a(x)
        if self.norm in {"group", "instance"}:
            return self.c(self.n(x))
        x = x.permute(0, 2, 3, 1)
        if self.norm == "response":
            g = x.norm(p=2, dim=(1, 2), keepdim=True)
            x = x + self.n.weight * (x * (g / (g.mean(-1, keepdim=True) + 1e-6))) + self.n.bias
        else:
            x = self.n(x)
        return self.c(x.permute(0, 3, 1, 2))


@structure((2, 4, 5), prunable="a.out:6 mix.out:7")
class MixedTokens(nn.Module):
    """Convolutions with a window of one over the features: only tokens are mixed, so the features stay an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.mix, self.back, self.c = nn.Linear(5, 6), nn.Conv1d(4, 7, 1), nn.Conv1d(7, 4, 1), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.c(x + self.back(self.mix(x).relu()))


@structure((2, 4, 5), prunable="first.out:7")
class MovedWindow(nn.Module):
    """A window of one that skips features, or sees some that padding adds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.a, self.skip, self.c = nn.Linear(7, 6), nn.Conv1d(4, 1, 1, stride=2), nn.Linear(3, 2)
        self.b, self.more, self.d = nn.Linear(7, 6), nn.Conv1d(4, 1, 1, padding=1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.c(self.skip(self.a(x))) + self.d(self.more(self.b(x)))


@structure((2, 3, 12), prunable="net.0.out.0:2 net.0.out.1:3 net.3.out.1:2", rank=1)
@structure((2, 3, 6, 6, 6), prunable="net.0.out.0:2 net.0.out.1:3 net.3.out.1:2", rank=3)
class OtherRank(nn.Module):
    """The same network in one and in three dimensions."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        made, norm = (nn.Conv1d, nn.BatchNorm1d) if rank == 1 else (nn.Conv3d, nn.BatchNorm3d)
        self.net = nn.Sequential(made(3, 6, 3), norm(6), nn.ReLU(), made(6, 4, 3, groups=2), nn.ReLU(), nn.Flatten(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.net(x).mean(2))


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.out:6")
class FlattenHead(nn.Module):
    """Channels times space flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), nn.Linear(4 * 16, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(F.relu(self.b(F.max_pool2d(self.a(x), 2).flatten(1))))


@structure((2, 3, 8, 8), prunable="a.0.out:8 r.out:4")
class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.r, self.e, self.c = conv(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.c(x * self.e(F.silu(self.r(F.adaptive_avg_pool2d(x, 1)))).sigmoid())


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.0.out.0:2 b.0.out.2:2")
class ZeroPadShortcut(nn.Module):
    """ResNet's option A: the shortcut is padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.c(self.b(x) + F.pad(x, (0, 0, 0, 0, 2, 2)))


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.0.out:6")
class FocusStem(nn.Module):
    """Four strided slices of space concatenated into channels, after a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(16, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.c(self.b(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)))


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.out:6")
class Unfolded(nn.Module):
    """im2col: channels times window positions become one dimension, summed by a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), nn.Linear(4 * 9, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(F.relu(self.b(F.unfold(self.a(x), 3, padding=1).transpose(1, 2))))


@structure((2, 3, 8, 8), prunable="a.0.out:4 b.0.out:6 la.out:5")
class FeaturePyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4), conv(4, 6)
        self.la, self.lb, self.head = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        top = self.lb(b)
        low = self.la(a) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return {"low": self.head(low), "top": self.head(top)}
