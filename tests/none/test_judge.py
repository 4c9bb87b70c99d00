"""The judge of plans: the loss of the repaired network on batches that did not repair it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.ir.errors import DataError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes import judge as judging
from billhook.passes.judge import Judge, repair, repaired_loss
from billhook.passes.prune import carry_out
from billhook.passes.recover_batchnorm import recalibrate_batchnorm
from billhook.passes.saliency import Data
from tests.none.test_plan_choice import SIZE, made


@pytest.fixture
def case() -> tuple[Program, Data]:
    return made(F.relu)


def test_a_repaired_network_loses_less(case: tuple[Program, Data]) -> None:
    program, data = case
    plan = make_plan(program, {"first.out": range(0, SIZE, 2), "second.out": range(SIZE // 2)})
    cut = bh.prune(program, plan.kept).model.eval()
    with torch.no_grad():
        plain = float(np.mean([F.mse_loss(cut(x), y) for x, y in data.loader]))
    assert repaired_loss(program, plan, data) < plain
    with pytest.raises(DataError, match="empty"):
        repaired_loss(program, plan, Data([], F.mse_loss))


def test_a_plan_is_judged_on_batches_that_it_was_not_repaired_with(case: tuple[Program, Data]) -> None:
    program, data = case
    plan = make_plan(program, {"first.out": range(0, SIZE, 2)})
    first, second = list(data.loader)
    for batches, judged in (([first, second], second), ([first], first)):
        few = Data(batches, F.mse_loss, 1)
        small = carry_out(program, plan)
        repair(program, small, few, sweeps=1)
        with torch.no_grad():
            expected = float(F.mse_loss(small.model.eval()(judged[0]), judged[1]))
        assert repaired_loss(program, plan, few) == pytest.approx(expected, rel=1e-5)


def test_further_sweeps_see_what_the_norms_changed() -> None:
    torch.default_generator.manual_seed(0)
    layers = [nn.Linear(8, SIZE), nn.ReLU(), nn.Linear(SIZE, SIZE), nn.BatchNorm1d(SIZE), nn.ReLU(), nn.Linear(SIZE, 4)]
    model = nn.Sequential(*layers).eval()
    x = torch.randn(256, 3) @ torch.randn(3, 8) + 0.2 * torch.randn(256, 8)
    recalibrate_batchnorm(model, [(x, x)])
    with torch.no_grad():
        data = Data([(x, model(x))], F.mse_loss)
    program = bh.trace(model, x[:1])
    plan = make_plan(program, {"0.out": range(0, SIZE, 4), "2.out": range(SIZE // 2)})

    def left(sweeps: int) -> float:
        small = carry_out(program, plan)
        repair(program, small, data, sweeps)
        with torch.no_grad():
            return float(F.mse_loss(small.model.eval()(x), model(x)))

    assert left(2) < 0.5 * left(1)


def test_equal_plans_are_repaired_once(case: tuple[Program, Data], monkeypatch: pytest.MonkeyPatch) -> None:
    program, data = case
    asked: list[int] = []

    def lost(_program: Program, plan: Plan, _data: Data) -> float:
        asked.append(plan.sizes().get("first.out", SIZE))
        return float(len(asked))

    monkeypatch.setattr(judging, "repaired_loss", lost)
    rising = np.arange(float(SIZE))
    judge, scores = Judge(program, data), {"first.out": rising, "second.out": rising}
    assert [judge(scores, {"first.out": size, "second.out": SIZE}) for size in (8, 4, 8, 6)] == [1.0, 2.0, 1.0, 3.0]
    assert asked == [8, 4, 6]
    assert judge({**scores, "first.out": -rising}, {"first.out": 8}) == 4.0  # other indices
