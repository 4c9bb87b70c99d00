"""What experts need beyond the structural fixtures: floors, refusals, and a reference in which a removed expert is never picked."""

from typing import Any

import pytest
import torch
from axis_oracle import Bench, bench
from structures import STRUCTURES
from torch import nn

from billhook.ir.errors import AxisError
from billhook.ir.plan import make_plan
from billhook.ir.target import Target
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.mask import mask_graph
from billhook.passes.rules.numbers import share_floor
from billhook.passes.unify import Atom, Cat, Prod


def made(name: str) -> Bench:
    model, (args, kwargs) = STRUCTURES[name].build()
    return bench(model, *args, **kwargs)


def test_fewer_experts_than_are_picked_is_refused() -> None:
    found = made("OneHotExperts")
    axis = found.program.axis("router.out")
    assert axis.least == 2
    with pytest.raises(AxisError, match="picks 2"):
        make_plan(found.program, {"router.out": [3]})
    assert min(candidate_sizes(found.program, Target(), floor=0.0)[axis.name]) >= 2


def test_every_pair_of_experts_is_exact() -> None:
    """With two of six left, every token gets both: the choice of the router plays no part any more."""
    found = made("GatheredExperts")
    for first in range(6):
        for second in range(first + 1, 6):
            found.check({"router.out": [first, second]})


class Numbers(nn.Module):
    """Hands out which experts it picked."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.router(x).topk(2, -1)[1]


class Arithmetic(nn.Module):
    """Looks up the expert after the one that is picked."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.table, self.head = nn.Linear(5, 6), nn.Embedding(7, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(self.router(x).argmax(-1) + 1))


class OtherTable(nn.Module):
    """Looks picked numbers up in a table of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.table, self.head = nn.Linear(5, 6), nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(self.router(x).argmax(-1)))


class AllPicked(nn.Module):
    """Sorts by picking all."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.router(x).topk(6, -1)[0])


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Numbers, "an output of the program names its indices by number"),
        (Arithmetic, "its indices are computed with by number"),
        (OtherTable, "sizes 6 and 9 differ"),
        (AllPicked, "all of them are picked"),
    ],
)
def test_what_sees_the_numbers_freezes_the_axis(model: Any, why: str) -> None:
    found = bench(model(), torch.randn(4, 5))
    reasons = "; ".join(map(str, found.program.axis("router.out").frozen_because))
    assert why in reasons


class Picked(nn.Module):
    """The scores of the two best of six, weighted by a table."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.table, self.head = nn.Linear(5, 6), nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, numbers = self.router(x).softmax(-1).topk(2, -1)
        return self.head((self.table(numbers) * scores.unsqueeze(-1)).sum(1))


def test_the_reference_never_picks_a_removed_expert() -> None:
    """Whatever the router's row and the table's entry of a removed expert are, the masked network does not change."""
    found = bench(Picked(), torch.randn(4, 5))
    masked = mask_graph(found.program, make_plan(found.program, {"router.out": [0, 2, 5]}))
    before = found.outputs(masked)[0]
    state = dict(masked.named_parameters())
    with torch.no_grad():
        state["router.bias"][[1, 3, 4]] = 1e3
        state["table.weight"][[1, 3, 4]] = torch.nan
    assert torch.equal(found.outputs(masked)[0], before)


def test_a_floor_is_divided_among_the_factors_of_a_product() -> None:
    groups, members = Atom(4), Atom(3)
    least: dict[int, int] = {}
    share_floor(Prod((groups, members), 12), 6, least)
    assert (least[id(groups)], least[id(members)]) == (4, 2)
    segments = (Atom(4), Atom(3))
    share_floor(Cat(segments, 7), 6, least)
    assert [least[id(s)] for s in segments] == [4, 2]
