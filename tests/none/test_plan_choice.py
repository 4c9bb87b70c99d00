"""Scores taken anew on the way to the budget, and the choice among plans by the loss of the repaired network."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.ir.errors import DataError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes import plan_choice
from billhook.passes.cut import cut_graph
from billhook.passes.plan_choice import Ranked, best_ranked, least_loss, repaired, repaired_loss
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


def test_a_repaired_network_loses_less(case: tuple[Program, Data]) -> None:
    program, data = case
    plan = make_plan(program, {"first.out": range(0, SIZE, 2), "second.out": range(SIZE // 2)})
    cut = bh.prune(program, plan.kept).model.eval()
    with torch.no_grad():
        plain = float(np.mean([F.mse_loss(cut(x), y) for x, y in data.loader]))
    assert repaired_loss(program, plan, data) < plain
    assert repaired(program, plan, data).plan.sizes() == plan.sizes()
    with pytest.raises(DataError, match="empty"):
        repaired_loss(program, plan, Data([], F.mse_loss))


def test_a_plan_is_judged_on_batches_that_it_was_not_repaired_with(case: tuple[Program, Data]) -> None:
    program, data = case
    plan = make_plan(program, {"first.out": range(0, SIZE, 2)})
    first, second = list(data.loader)
    for batches, judged in (([first, second], second), ([first], first)):
        few = Data(batches, F.mse_loss, 1)
        with torch.no_grad():
            expected = float(F.mse_loss(repaired(program, plan, few).model.eval()(judged[0]), judged[1]))
        assert repaired_loss(program, plan, few) == pytest.approx(expected, rel=1e-5)


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
    best = best_ranked(criterion, program, scores, worth, sizes, (0.5, 1.0), (data, data))
    assert scored == asked
    assert set(best.worth) == set(worth)


def test_the_lowest_loss_decides_and_equal_plans_are_measured_once(case: tuple[Program, Data]) -> None:
    program, _ = case
    sizes = (8, 4, 8, 6)
    offered = [Ranked({}, {"first.out": np.array([float(s)])}) for s in sizes]
    measured: list[int] = []

    def plan(ranked: Ranked) -> Plan:
        return make_plan(program, {"first.out": range(int(ranked.worth["first.out"][0]))})

    def loss(made: Plan) -> float:
        measured.append(made.sizes()["first.out"])
        return {8: 0.5, 4: 0.9, 6: 0.5}[measured[-1]]

    chosen: Any = least_loss(offered, plan, loss)
    assert chosen is offered[0]  # the first of equals
    assert measured == [8, 4, 6]
