"""The verifier names planted faults, and the runner names the pass that planted them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import billhook as bh
from billhook.ir.dims import Leaf, Occurrence
from billhook.ir.errors import VerifyError
from billhook.ir.passes import run_passes
from billhook.ir.program import Edit, Program, Read, SizeOf
from billhook.ir.verify import verify


@pytest.fixture(scope="module")
def program() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).view(x.shape[0], 2, 3).flatten(1))

    return bh.trace(Net(), torch.randn(2, 4))


def wrong_type(p: Program) -> Program:
    return replace(p, types={**p.types, "linear": (Leaf("batch", 2), Leaf("a.out", 5))})


def same_name_twice(p: Program) -> Program:
    return replace(p, axes=(*p.axes, p.axes[0]))


def member(p: Program, place: Occurrence) -> Program:
    axis = next(a for a in p.axes if a.prunable)
    bad = replace(axis, members=(replace(axis.members[0], place=place), *axis.members[1:]))
    return replace(p, axes=tuple(bad if a is axis else a for a in p.axes))


def outside(p: Program) -> Program:
    axis = next(a for a in p.axes if a.prunable)
    return member(p, replace(axis.members[0].place, offset=99))


def overlapping(p: Program) -> Program:
    axis = next(a for a in p.axes if a.prunable)
    return member(p, replace(axis.members[0].place, stride=0))


def wrong_edit(p: Program) -> Program:
    name = next(n for n in p.edits if n.startswith("view"))
    args = p.edits[name].args
    return replace(p, edits={**p.edits, name: Edit((args[0], [SizeOf(Leaf(None, 2)), SizeOf(Leaf(None, 7)), SizeOf(Leaf(None, 3))]))})


def read_of_nothing(p: Program) -> Program:
    return replace(p, reads=(*p.reads, Read("linear", 9, 0)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (wrong_type, "node linear: its type has sizes"),
        (same_name_twice, "two axes share a name"),
        (outside, "points outside or overlaps"),
        (overlapping, "points outside or overlaps"),
        (wrong_edit, "its edit states"),
        (read_of_nothing, "names node linear, argument 9"),
    ],
)
def test_a_planted_fault_is_named(program: Program, fault: Callable[[Program], Program], message: str) -> None:
    verify(program)
    with pytest.raises(VerifyError, match=message):
        verify(fault(program))


def test_the_runner_names_the_pass_and_reports_the_others(program: Program) -> None:
    seen: list[str] = []
    _, timings = run_passes(program, [("same", lambda p: p)], observe=lambda name, _: seen.append(name))
    assert [t.name for t in timings] == seen == ["same"]
    with pytest.raises(VerifyError, match="after pass breaks: two axes share a name"):
        run_passes(program, [("breaks", same_name_twice)])
