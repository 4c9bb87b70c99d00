"""Recurrence, embeddings, products with bare parameters."""

import torch
import torch.nn.functional as F
from structures import structure
from torch import nn
from torch.nn.utils import parametrizations


def tokens() -> torch.Tensor:
    return torch.tensor([[1, 2, 3, 4], [4, 0, 2, 5]])


@structure(tokens, prunable="embed.out:5 cell.weight_ih_l0.out.1:4", kind="LSTM", layers=1, both=False)
@structure(tokens, prunable="embed.out:5 cell.weight_ih_l0.out.1:4", kind="LSTM", layers=2, both=True)
@structure(tokens, prunable="embed.out:5 cell.weight_ih_l0.out.1:4", kind="GRU", layers=2, both=False)
@structure(tokens, prunable="embed.out:5 cell.weight_ih_l0.out.1:4", kind="GRU", layers=1, both=True)
@structure(tokens, prunable="embed.out:5 cell.weight_ih_l0.out:4", kind="RNN", layers=1, both=False)
class Recurrent(nn.Module):
    def __init__(self, kind: str, layers: int, both: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 5)
        self.cell = getattr(nn, kind)(5, 4, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(8 if both else 4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(self.embed(x))[0])


@structure(tokens, prunable="embed.out:5 cell.weight_hr_l0.out:3")
class ProjectedLSTM(nn.Module):
    """A recurrent layer with a projected state, whose last state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell, self.head = nn.Embedding(6, 5), nn.LSTM(5, 6, proj_size=3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (h, _) = self.cell(self.embed(x).transpose(0, 1))
        return self.head(h[0])


@structure(tokens, prunable="mlp.0.out:10 mlp.2.out:8")
class TiedEmbedding(nn.Module):
    """The output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Embedding(6, 8), nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 8))
        self.head = nn.Linear(8, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(x + self.mlp(x))


@structure(tokens, prunable="words.out:8")
class NumberedPositions(nn.Module):
    """BERT's table of position numbers is longer than the text: what is left of it belongs to no weight, and is not pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(6, 8), nn.Embedding(12, 8), nn.Linear(8, 3)
        self.register_buffer("position_ids", torch.arange(12).expand(1, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers = self.get_buffer("position_ids")[:, : x.shape[1]]
        return self.head(self.words(x) + self.positions(numbers))


@structure((2, 5), prunable="a.out:8")
class TiedLinears(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.c.weight = self.b.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))


@structure((2, 4, 5), prunable="a.out:8 w.out:6", equation="bnc,ck->bnk")
@structure((2, 4, 5), prunable="a.out:8 w.out:6", equation="...c,ck->...k")
class Einsum(nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.a, self.w, self.b, self.equation = nn.Linear(5, 8), nn.Parameter(torch.randn(8, 6)), nn.Linear(6, 2), equation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.einsum(self.equation, self.a(x), self.w).relu())


@structure((2, 5), prunable="w.out:8")
class BareMatmul(nn.Module):
    """x @ W + b with bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b, self.head = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8, 2))
        self.shift = nn.Parameter(torch.randn(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.shift, (x @ self.w + self.b).relu(), self.head)


@structure((2, 3, 8, 8), prunable="a.out:6 b.out:4")
class WeightNorm(nn.Module):
    """A parametrization that recomputes the weight from a direction and a length."""

    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
        self.b, self.c = parametrizations.weight_norm(nn.Conv2d(6, 4, 3)), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x).relu()).relu())


@structure((2, 3, 8, 8), prunable="gain.dim0:4 a.out:6")
class ScaledWeight(nn.Module):
    """NFNet: weights standardised over their inputs by a batch normalisation of the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.Conv2d(4, 2, 1)
        self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = F.batch_norm(self.b.weight.reshape(1, 4, -1), None, None, weight=self.gain.view(-1), training=True, momentum=0.0, eps=1e-6)
        return self.c(F.conv2d(self.a(x).relu(), w.reshape_as(self.b.weight), self.b.bias).relu())


@structure((2, 3, 5), (2, 4, 5), prunable="up.out:3 up.out':6 down.out:4")
class Experts(nn.Module):
    """Two experts with soft routing, weights stacked in one parameter; and a cosine between two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.gate = nn.Parameter(torch.randn(3, 5, 6)), nn.Parameter(torch.randn(3, 6, 4)), nn.Linear(5, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.einsum("bnd,edh->benh", x, self.up).relu()
        out = torch.einsum("benh,ehd->bend", h, self.down)
        z = (out * self.gate(x).softmax(-1).transpose(1, 2)[..., None]).sum(1)
        return self.head(z), F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).transpose(1, 2)
