"""The oracle at the border of an axis agrees with the oracle at the outputs, and sees a planted fault."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from axis_oracle import EQUAL, MOVED, Bench, bench
from structures import STRUCTURES
from torch import nn

from billhook.ir.dims import Leaf
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes import oracle_local
from billhook.passes.cut import cut_nodes
from billhook.passes.module import Materialised
from billhook.passes.oracle_local import LocalOracle

NAMES = ("C2f", "FusedQKV_chunk", "GroupedQuery", "InPlace", "OneHotExperts", "SharedModule", "StridedSlices", "UNet")


def made(name: str) -> Bench:
    model, (args, kwargs) = STRUCTURES[name].build()
    return bench(model, *args, **kwargs)


def plans(found: Bench) -> Iterator[Plan]:
    for name in found.prunable():
        yield make_plan(found.program, found.half([name]))
        if found.program.axis(name).additive:
            yield make_plan(found.program, {name: []})
    yield make_plan(found.program, found.half(seed=3))


@pytest.mark.parametrize("name", NAMES)
def test_right_cuts_agree_at_the_border(name: str) -> None:
    found = made(name)
    oracle = LocalOracle(found.program, (found.args, found.kwargs))
    for plan in plans(found):
        seen = oracle.compare(plan)
        assert seen.error < EQUAL, plan
        assert seen.moved > MOVED, plan


class Gated(nn.Module):
    """A product of two layers: their channels have to stay aligned."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.c(self.a(x) * self.b(x)).relu())


class Windowed(nn.Module):
    """A mask that is written in pieces and then read, as windows that were shifted have; and a result that is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 8), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = x.new_zeros(3, 1)
        mask[1:] = 2.0
        y = self.b(self.a(x) + mask).tanh()
        y[:, 0] = 1.0
        return self.head(y)


def test_only_what_meets_memory_that_is_written_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench(Windowed(), torch.randn(2, 3, 5))
    oracle = LocalOracle(found.program, (found.args, found.kwargs))
    assert oracle.shared
    sizes: list[int] = []

    def counted(program: Program, plan: Plan) -> Materialised:
        sizes.append(len(list(program.nodes())))
        return cut_nodes(program, plan)

    monkeypatch.setattr(oracle_local, "cut_nodes", counted)
    for name in ("a.out", "b.out"):
        seen = oracle.compare(make_plan(found.program, found.half([name])))
        assert seen.error < EQUAL
        assert seen.moved > MOVED
    assert sizes[0] < sizes[1] == len(oracle.order)


def test_a_planted_fault_is_seen() -> None:
    """Columns of the reader are taken in reverse: same sizes, wrong indices."""
    found = bench(Gated(), torch.randn(2, 5))
    node = next(n for n in found.program.nodes() if n.op == "get_attr" and str(n.target) == "c.weight")
    plan = make_plan(found.program, {"a.out": [0, 2, 5]})
    assert LocalOracle(found.program, (found.args, found.kwargs)).compare(plan).error < EQUAL
    reversed_dims = (found.program.types[node.name][0], Leaf("reversed", 8))
    axes = (*found.program.axes, replace(found.program.axis("a.out"), name="reversed", aliases=()))
    wrong = replace(found.program, types={**found.program.types, node.name: reversed_dims}, axes=axes)
    both = Plan({**plan.kept, "reversed": tuple(7 - i for i in reversed(plan.kept["a.out"]))})
    seen = LocalOracle(wrong, (found.args, found.kwargs)).compare(both)
    assert seen.error > 1e-3
