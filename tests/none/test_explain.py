"""The explanation of an axis, word for word, and what a plan adds to it."""

import re

import pytest
import torch
from torch import nn

import billhook as bh
from billhook.ir.errors import AxisError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program

AXIS = """\
axis 0.out: 4 indices, prunable, down to nothing
also called 1.out, 4.in.0
the plan keeps 3 of 4: 0..1, 3

one index is 40 elements in 7 tensors:
  makes it   0.weight        dim 0 of [4, 3, 3, 3]
  makes it   0.bias          dim 0 of [4]
  scales it  1.weight        dim 0 of [4]
  scales it  1.bias          dim 0 of [4]
  reads it   4.weight        dim 1 of [2, 16]       4 positions each, the first from 0 in steps of 4
  scales it  1.running_mean  dim 0 of [4]
  scales it  1.running_var   dim 0 of [4]

it runs through:
  conv2d      aten.conv2d              makes it
  batch_norm  aten.batch_norm          carries it
  relu        aten.relu                carries it
  flatten     aten.flatten.using_ints  carries it
  linear      aten.linear              sums over it"""

FROZEN = """\
axis 4.out: 2 indices, frozen
frozen: an output of the program (aten.linear.default, node linear)

one index is 17 elements in 2 tensors:
  makes it  4.weight  dim 0 of [2, 16]
  makes it  4.bias    dim 0 of [2]

it runs through:
  linear  aten.linear  makes it"""


def network() -> Program:
    return bh.trace(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)), torch.randn(1, 3, 4, 4)
    )


def without_sources(text: str) -> str:
    return re.sub(r" +\S+\.py:\d+$", "", text, flags=re.MULTILINE)


def test_a_plan_explains_what_moves_together() -> None:
    plan = make_plan(network(), {"4.in.0": [3, 0, 1]})
    assert without_sources(plan.explain("1.out")) == AXIS


def test_a_frozen_axis_says_why() -> None:
    assert without_sources(network().explain("4.out")) == FROZEN


def test_the_users_source_line_is_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).softmax(-1))

    text = bh.trace(Own(), torch.randn(2, 4)).explain("a.out")
    assert re.search(r"softmax .* takes a statistic over it +test_explain\.py:\d+$", text, flags=re.MULTILINE)
    assert "mixing: " in text


def test_parts_of_a_dimension_are_located() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 5), nn.Linear(11, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(torch.cat([self.a(x), self.b(x)], -1))

    program = bh.trace(Joined(), torch.randn(2, 4))
    assert "c.weight  dim 1 of [2, 11]  positions 0..5" in program.explain("a.out")
    assert "c.weight  dim 1 of [2, 11]  positions 6..10" in program.explain("b.out")


def test_long_lists_are_counted() -> None:
    model = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(30)))
    text = bh.trace(nn.Sequential(nn.Linear(2, 3), model, nn.Linear(3, 1)), torch.randn(2, 2)).explain("0.out")
    assert "  ... and 83 more" in text
    assert len(text.splitlines()) < 90


def test_unknown_axes_and_plans_without_a_program() -> None:
    with pytest.raises(AxisError, match="did you mean"):
        network().explain("0.outt")
    with pytest.raises(AxisError, match=r"axis 0\.out: this plan does not know its program"):
        Plan({"0.out": (0,)}).explain("0.out")
