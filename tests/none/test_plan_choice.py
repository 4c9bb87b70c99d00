"""Scores taken anew on the way to the budget, and the choice among worths by the loss of the repaired network."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.passes import plan_choice
from billhook.passes.cut import cut_graph
from billhook.passes.judge import Judge
from billhook.passes.plan_choice import best_ranked
from billhook.passes.rescore import PARTS, rescored
from billhook.passes.saliency import Data, Scores, retained
from billhook.passes.saliency_criteria import score_axes

SIZE = 12


class Net(nn.Module):
    def __init__(self, activation: Callable[..., torch.Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.norm, self.second, self.head = (
            nn.Conv2d(2, SIZE, 3),
            nn.BatchNorm2d(SIZE),
            nn.Conv2d(SIZE, SIZE, 2),
            nn.Linear(SIZE, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.activation(self.second(self.activation(self.norm(self.first(x))))).mean((2, 3)))


@pytest.fixture
def case() -> tuple[Program, Data]:
    return made(F.relu)


def made(activation: Callable[..., torch.Tensor]) -> tuple[Program, Data]:
    """A network with its own answers as targets, on correlated inputs: what is removed can be predicted from what is left."""
    torch.default_generator.manual_seed(0)
    model = Net(activation).eval()
    x = (torch.randn(96, 3) @ torch.randn(3, 72)).reshape(96, 2, 6, 6) + 0.2 * torch.randn(96, 2, 6, 6)
    with torch.no_grad():
        y = model(x)
    noisy = y + 0.1 * torch.randn_like(y)  # otherwise all gradients are zero
    return bh.trace(model, x[:1]), Data([(x[:48], noisy[:48]), (x[48:], noisy[48:])], F.mse_loss)


def test_scores_anew_go_down_in_equal_ratios_and_never_bring_back(case: tuple[Program, Data]) -> None:
    program, data = case
    asked: list[tuple[float, dict[str, int]]] = []

    def choose(scores: Scores, seconds: float) -> Mapping[str, int]:
        left = {name: int(np.count_nonzero(s)) for name, s in scores.items()}
        asked.append((seconds, left))
        return {name: max(1, round(SIZE * seconds)) for name in ("first.out", "second.out")}

    dense = score_axes("taylor", program, cut_graph(program, Plan({})), data)
    found = rescored("taylor", program, dense, data, choose, goal=0.125, dense=1.0)
    assert [seconds for seconds, _ in asked] == pytest.approx([0.5, 0.25])
    assert PARTS == 3
    assert [left["first.out"] for _, left in asked] == [SIZE, SIZE // 2]
    assert np.count_nonzero(found["first.out"]) == np.count_nonzero(found["second.out"]) == SIZE // 4
    whole = rescored("taylor", program, dense, data, lambda scores, _: {}, goal=0.125, dense=1.0)
    assert np.count_nonzero(whole["first.out"]) == SIZE
    assert not np.allclose(found["first.out"][found["first.out"] > 0], whole["first.out"][found["first.out"] > 0])  # they are new


@pytest.mark.parametrize(
    ("criterion", "activation", "asked"), [("taylor", F.gelu, ["taylor", "smcp"]), ("taylor", F.relu, ["taylor"]), ("l2", F.gelu, ["l2"])]
)
def test_the_default_has_a_rival_where_makers_and_readers_disagree(
    monkeypatch: pytest.MonkeyPatch, criterion: str, activation: Callable[..., torch.Tensor], asked: list[str]
) -> None:
    program, data = made(activation)
    scored: list[str] = []

    def spy(name: str, *args: Any) -> Any:
        scored.append(name)
        return rescored(name, *args)

    def sizes(worth: Mapping[str, Any], seconds: float) -> Mapping[str, int]:
        return {name: max(1, round(SIZE * seconds)) for name in ("first.out", "second.out")}

    monkeypatch.setattr(plan_choice, "rescored", spy)
    scores = score_axes(criterion, program, cut_graph(program, Plan({})), data)
    worth = {name: retained(s) for name, s in scores.items()}
    best = best_ranked(criterion, program, scores, worth, sizes, (0.5, 1.0), data, Judge(program, data))
    assert scored == asked
    assert set(best.worth) == set(worth)


def test_the_axes_are_weighed_so_that_no_plan_of_the_pool_loses_less(case: tuple[Program, Data]) -> None:
    program, data = case
    judge = Judge(program, data)
    seen: list[float] = []

    def sizes(worth: Mapping[str, Any], seconds: float) -> Mapping[str, int]:
        first = 2 + 2 * round(3 * float(worth["first.out"][-1] / (worth["first.out"][-1] + worth["second.out"][-1])))
        return {"first.out": first, "second.out": SIZE - first}

    def spy(scores: Scores, chosen: Mapping[str, int]) -> float:
        seen.append(judge(scores, chosen))
        return seen[-1]

    scores = score_axes("taylor", program, cut_graph(program, Plan({})), data)
    worth = {name: retained(s) for name, s in scores.items() if name != "head.out"}
    best = best_ranked("taylor", program, scores, worth, sizes, (0.5, 1.0), data, cast("Judge", spy))
    assert judge(best.scores, sizes(best.worth, 0.5)) <= min(seen) + 1e-3
