"""Experts, and what else is looked up by numbers that the network makes itself."""

import torch
import torch.nn.functional as F
from structures import structure
from torch import nn


class _Experts(nn.Module):
    """Tokens of width 8, a router over six experts that picks two, stacked weights of two layers of six neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(8, 2)
        self.up, self.down = nn.Parameter(torch.randn(6, 8, 7)), nn.Parameter(torch.randn(6, 7, 8))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def picked(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and numbers of the best two, [tokens, 2] each."""
        weights, numbers = self.router(x).softmax(-1).topk(2, -1)
        return weights / weights.sum(-1, keepdim=True), numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(x + self.mix(x))


@structure((4, 5), prunable="down.out:8 up.out:6 up.out':7")
class OneHotExperts(_Experts):
    """All experts run; a one-hot table of the picked ones combines them."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        weights, numbers = self.picked(x)
        combine = (F.one_hot(numbers, 6).to(x.dtype) * weights.unsqueeze(-1)).sum(1)
        hidden = torch.einsum("nd,edh->neh", x, self.up).relu()
        return torch.einsum("neh,ehd,ne->nd", hidden, self.down, combine)


@structure((4, 5), prunable="down.out:8 up.dim0:6 up.out:7", infinite=False)
@structure((4, 5), prunable="down.out:8 up.dim0:6 up.out:7", infinite=True)
class ScatteredExperts(_Experts):
    """Stacked weights with batched products over repeated tokens; gates written into zeros, or logits into minus infinity."""

    def __init__(self, infinite: bool) -> None:
        super().__init__()
        self.infinite = infinite

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.router(x)
        if self.infinite:
            best, numbers = logits.topk(2, -1)
            return torch.full_like(logits, float("-inf")).scatter_(1, numbers, best).softmax(-1)
        weights, numbers = self.picked(x)
        return torch.zeros(x.shape[0], 6, dtype=x.dtype).scatter(1, numbers, weights)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.repeat(6, 1).view(6, -1, 8)
        out = torch.bmm(torch.bmm(tokens, self.up).relu(), self.down)
        return (out * self.gates(x).t().unsqueeze(-1)).sum(0)


@structure((4, 5), prunable="up.dim1:8 up.dim0:6 up.dim2:7")
class GatheredExperts(_Experts):
    """The weights of the picked experts are looked up for every token; a bias for each expert moves the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = nn.Parameter(torch.randn(6))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.router(x).sigmoid()
        numbers = (scores + self.balance).topk(2, -1)[1]
        weights = scores.gather(1, numbers)
        hidden = torch.einsum("nd,nkdh->nkh", x, self.up[numbers]).relu()
        return torch.einsum("nkh,nkhd,nk->nd", hidden, self.down[numbers], weights)


@structure((4, 5), prunable="up.dim1:8 up.dim0:6 up.dim2:7")
class BestExpert(_Experts):
    """One expert for each token, by the position of the maximum, through index_select."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        weight, number = self.router(x).softmax(-1).max(-1)
        up, down = self.up.index_select(0, number), self.down.index_select(0, number)
        return torch.bmm(torch.bmm(x.unsqueeze(1), up).relu(), down).squeeze(1) * weight.unsqueeze(-1)


@structure((4, 5), prunable="up.dim1:8 up.dim0.0:3 up.dim0.1:2 up.dim2:7")
class GroupedRouting(_Experts):
    """Two of three groups of experts are picked first, by their best expert, then two experts within them."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.router(x).sigmoid()
        best = scores.view(-1, 3, 2).amax(-1).topk(2, -1)[1]
        allowed = torch.zeros(x.shape[0], 3, dtype=x.dtype).scatter(1, best, 1.0)
        open_ = allowed.unsqueeze(-1).expand(-1, 3, 2).reshape(-1, 6)
        weights, numbers = scores.masked_fill(open_ == 0, 0.0).topk(2, -1)
        hidden = torch.einsum("nd,nkdh->nkh", x, self.up[numbers]).relu()
        return torch.einsum("nkh,nkhd,nk->nd", hidden, self.down[numbers], weights)


@structure((4, 5), prunable="up.dim1:8 up.dim2:7")
class ComparedExperts(_Experts):
    """A loop over the experts that compares their numbers with constants: they cannot be renumbered."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        weights, numbers = self.picked(x)
        out = torch.zeros_like(x)
        for i in range(6):
            gate = torch.where(numbers == i, weights, 0.0).sum(-1, keepdim=True)
            out = out + gate * ((x @ self.up[i]).relu() @ self.down[i])
        return out


@structure((4, 5), prunable="embed.out:8 experts.0.0.out:7 experts.1.0.out:7 experts.2.0.out:7")
class LoopedExperts(nn.Module):
    """A module for each expert, run on the tokens that picked it: how many these are depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router, self.head = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 8)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        weights, numbers = self.router(x).softmax(-1).topk(2, -1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            row, place = torch.where(numbers == i)
            out.index_add_(0, row, expert(x[row]) * weights[row, place].unsqueeze(-1))
        return self.head(out)


@structure((4, 5), prunable="codes.out:9 codes.out':4")
class Codebook(nn.Module):
    """Vector quantisation: the nearest entry of a table, found by distance and looked up by number."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(5, 4), nn.Linear(4, 2)
        self.codes = nn.Parameter(torch.randn(9, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encode(x)
        distance = (z.unsqueeze(1) - self.codes).square().sum(-1)
        return self.decode(F.embedding(distance.argmin(-1), self.codes))


@structure((4, 5), prunable="a.out:6 b.out:6")
class RunningTotals(nn.Module):
    """Sums along channels up to each one, and the product of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x).cumsum(-1)) + self.d(self.b(x).sigmoid().cumprod(-1))
