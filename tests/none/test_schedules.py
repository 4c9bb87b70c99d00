"""Schedules: the hooks against plain autograd, each schedule against its formula, and the budget met in the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.ir.errors import DataError, OptionError
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.prune import carry_out
from billhook.passes.saliency import Floats
from billhook.passes.schedule import Masks, Moment, Schedule, sizes_of
from billhook.passes.schedule_budget import LatencyBudget
from billhook.passes.schedule_learned import Gates, PrimalDual, Thresholds
from billhook.passes.schedule_optimizer import SharpnessAware, cut_optimizer
from billhook.passes.schedule_steps import AutoSparse, Gmp, Iterative, MaskSparsity, OneShot, Soft, SoftMask
from billhook.passes.schedule_training import MaskedTraining
from billhook.passes.schedule_triggers import EarlyStop, ExploreExploit, similarity


@dataclass
class Line:
    """A budget over one axis of ten indices, a second each, which keeps the best scores."""

    goal: float = 4.0
    dense: float = 10.0
    asked: list[float] = field(default_factory=list)

    def kept(self, scores: Mapping[str, Floats], target: float) -> dict[str, Floats]:
        self.asked.append(target)
        order = np.argsort(-scores["a"], kind="stable")
        mask = np.zeros(10)
        mask[order[: int(target + 1e-9)]] = 1.0
        return {"a": mask}

    def seconds(self, sizes: Mapping[str, int]) -> float:
        return float(sizes["a"])

    def slopes(self, sizes: Mapping[str, int]) -> dict[str, float]:
        return {"a": 1.0}


def run(schedule: Schedule, steps: int, scores: Any = None, pull: Any = None, line: Line | None = None) -> list[Masks]:
    """The masks of every step, with scores and pulls that are constant or functions of the step."""
    masks, found = Masks(), list[Masks]()
    for step in range(steps + 1):
        values: Any = scores(step) if callable(scores) else np.arange(10.0) if scores is None else scores
        force: Any = pull(step) if callable(pull) else np.zeros(10) if pull is None else pull
        current: dict[str, Floats] = {"a": values}
        masks = schedule(Moment(step, steps, masks, partial(dict, current), {"a": force}, line or Line()))
        found.append(masks)
    return found


def count(masks: Masks) -> int:
    return sizes_of(masks.keep)["a"] if masks.keep else 10


def test_one_shot_cuts_once_and_for_all() -> None:
    line = Line()
    found = run(OneShot(after=2), 5, line=line)
    assert [count(m) for m in found] == [10, 10, 4, 4, 4, 4]
    assert line.asked == [4.0]
    np.testing.assert_array_equal(found[-1].flow["a"], found[-1].keep["a"])


def test_iterative_goes_to_halps_targets_and_never_back() -> None:
    line = Line()
    found = run(Iterative(times=3, every=2), 8, lambda s: np.arange(10.0) if s < 4 else np.arange(10.0)[::-1], line=line)
    assert line.asked == pytest.approx([math.exp(t / 3 * math.log(4) + (1 - t / 3) * math.log(10)) for t in (1, 2, 3)])
    assert count(found[2]) == 7
    assert all((b.keep["a"] <= a.keep["a"]).all() for a, b in pairwise(found[2:]))


def test_gmp_follows_the_cubic() -> None:
    line = Line()
    run(Gmp(begin=0, end=10, every=5), 12, line=line)
    ways = [1 - (1 - t / 10) ** 3 for t in (0, 5, 10)]
    assert line.asked == pytest.approx([math.exp(w * math.log(4) + (1 - w) * math.log(10)) for w in ways])


def test_soft_pruning_zeroes_at_epochs_and_keeps_training() -> None:
    found = run(Soft(epoch=3), 9)
    assert [m.decay for m in found] == [0, 0, 0, 1, 0, 0, 1, 1, 1, 1]
    assert [bool(m.keep) for m in found] == [False, False, False, True, False, False, True, True, True, True]
    assert not any(m.flow for m in found)
    rising = run(Soft(epoch=3, rising=True), 9)
    assert count(rising[3]) > count(rising[9]) == 4


def _turning(step: int) -> np.ndarray:
    """Scores whose order turns around at the fourth step."""
    return np.arange(10.0) if step < 4 else np.arange(10.0)[::-1]


def test_smcp_lets_indices_return_until_it_cools_down() -> None:
    line = Line()
    found = run(SoftMask(every=2, rate=4.0, cool=0.3), 10, _turning, line=line)
    expected = [(1 - math.exp(-4 * t / 7)) / (1 - math.exp(-4)) for t in (2, 4, 6)]
    assert line.asked[:3] == pytest.approx([math.exp(w * math.log(4) + (1 - w) * math.log(10)) for w in expected])
    assert found[2].keep["a"][0] == 0
    assert found[4].keep["a"][0] == 1  # regrown
    assert not found[6].flow
    assert all(m.flow for m in found[7:])
    assert count(found[-1]) == 4
    assert all((a.keep["a"] == b.keep["a"]).all() for a, b in pairwise(found[7:]))


def test_autosparse_anneals_the_gradients_of_masked_indices() -> None:
    found = run(AutoSparse(every=100), 8)
    factors = [float(m.flow["a"][0]) for m in found]  # index 0 has the lowest score and is masked throughout
    np.testing.assert_allclose(factors, [0.5 * (1 + math.cos(math.pi * t / 8)) for t in range(9)], atol=1e-12)
    assert {float(m.flow["a"][9]) for m in found} == {1.0}


def test_mask_sparsity_presses_only_what_is_to_go() -> None:
    found = run(MaskSparsity(after=1, strength=0.5), 4)
    np.testing.assert_array_equal(found[2].penalty["a"], [0.5] * 6 + [0.0] * 4)
    assert not found[2].keep
    assert count(found[4]) == 4


def test_similarity_is_the_papers() -> None:
    left, right = {"a": np.ones(10), "b": np.array([1.0, 0, 0, 0])}, {"a": np.array([1.0] * 6 + [0] * 4), "b": np.array([1.0, 1, 0, 0])}
    assert similarity(left, right) == pytest.approx(1 - ((10 - 6) / 16 + (2 - 1) / 3) / 2)
    assert similarity(left, left) == 1


def test_epi_waits_until_the_allocation_is_stable() -> None:
    noisy = Line()

    def drifting(step: int) -> float:
        return 8.0 - min(step, 6)

    class Drift(Line):
        def kept(self, scores: Mapping[str, Floats], target: float) -> dict[str, Floats]:
            return {"a": (np.arange(10) < drifting(len(self.asked))).astype(float)} if not self.asked.append(0.0) else {}

    early = run(EarlyStop(every=1, window=2, high=0.95), 40, line=noisy)
    late = run(EarlyStop(every=1, window=2, high=0.95), 40, line=Drift())
    first = [next(i for i, m in enumerate(found) if m.keep) for found in (early, late)]
    assert first[0] == 3  # three similarities of 1
    assert first[0] < first[1] < 20


def test_explore_trains_only_the_silenced_part_and_then_everything_is_scored_alike() -> None:
    found = run(ExploreExploit(every=4, explore=1, cool=0.2), 12, _turning)
    np.testing.assert_array_equal(found[1].flow["a"], found[1].keep["a"])  # exploit
    assert not found[3].keep  # explore: all take part in the forward pass
    np.testing.assert_array_equal(found[3].flow["a"], 1 - found[1].keep["a"])
    np.testing.assert_array_equal(found[4].keep["a"], found[1].keep["a"][::-1])  # regrown
    assert count(found[-1]) == 4


@pytest.mark.parametrize("schedule", [Gates(rate=0.02), PrimalDual(rate=0.02), Thresholds(rate=0.05)])
def test_learned_masks_drop_what_the_loss_can_spare(schedule: Schedule) -> None:
    """The loss pulls at the upper half of the indices: these are kept, and in the end the budget is met."""
    wanted = np.where(np.arange(10) < 5, 0.0, -2.0)
    found = run(schedule, 60, scores=np.where(np.arange(10) < 5, 0.1, 1.0), pull=wanted)
    assert count(found[-1]) == 4
    assert (found[-1].keep["a"][:5] == 0).all()
    assert found[-1].flow


def test_gates_move_by_loss_and_price() -> None:
    pull = np.linspace(-1, 1, 10)
    found = run(Gates(rate=0.1, price=2.0), 10, pull=pull)
    np.testing.assert_allclose(found[0].memory["a"], np.clip(1 - 0.1 * (pull + 2.0 * 1.0 / 4.0), 0, 1))


def test_the_dual_rises_while_the_budget_is_missed() -> None:
    found = run(PrimalDual(rate=0.0, dual_rate=0.5), 4)
    assert found[0].memory[" price"][0] == pytest.approx(0.5 * (10 / 4 - 1))
    assert found[1].memory[" price"][0] == pytest.approx(2 * 0.5 * (10 / 4 - 1))


def test_bad_options_are_refused() -> None:
    for make in (lambda: Iterative(0, 5), lambda: Gmp(5, 5), lambda: Soft(0), lambda: SoftMask(3, cool=1.5), lambda: ExploreExploit(4, 4)):
        with pytest.raises(OptionError):
            make()


# ---------------------------------------------------------------- the hooks, on a real network


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv1, self.bn1 = nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv2, self.bn2 = nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        return self.head(F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3)))


def network() -> tuple[Net, Program, LatencyBudget]:
    torch.default_generator.manual_seed(0)
    model = Net()
    program = bh.trace(model, torch.randn(1, 1, 8, 8))
    candidates = candidate_sizes(program, Target())
    (tables,) = static_tables(network_kernels(program, candidates, Target()), candidates, Roofline())
    budget = LatencyBudget(program, candidates, tables, 1.0)
    budget.goal = 0.6 * budget.dense
    return model.train(), program, budget


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(4, (8,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), y))
        optimizer.step()


def test_soft_masks_equal_a_masked_forward_with_straight_through_gradients() -> None:
    """Against plain autograd: the gradient of the loss by w * m, applied to w."""
    model, program, budget = network()
    mask = (np.arange(24) % 3 > 0).astype(float)
    weight, other = model.conv2.weight.detach().clone(), model.head.weight.detach().clone()
    reference = Net().train()
    reference.load_state_dict(model.state_dict())
    masked = (weight * torch.from_numpy(mask).float()[None, :, None, None]).requires_grad_()
    x, y = batch()
    loss = F.cross_entropy(torch.func.functional_call(reference, {"conv2.weight": masked}, x), y)
    gradients = torch.autograd.grad(loss, [masked, reference.head.weight])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[Moment] = []

    def watched(moment: Moment) -> Masks:
        seen.append(moment)
        return Masks({"conv1.out": mask})

    with MaskedTraining(program, model, optimizer, watched, steps=1, budget=budget, criterion="l2"):
        torch.testing.assert_close(model.conv2.weight.detach(), masked.detach())  # what evaluation sees
        train(model, optimizer, 1)
    torch.testing.assert_close(model.conv2.weight.detach(), weight - 0.1 * gradients[0])
    torch.testing.assert_close(model.head.weight.detach(), other - 0.1 * gradients[1])
    pull = (weight * gradients[0]).sum((0, 2, 3)).double().numpy()
    np.testing.assert_allclose(seen[-1].pull["conv1.out"], pull, rtol=1e-4, atol=1e-7)


def test_hard_masks_stop_learning_and_decay_shrinks() -> None:
    model, program, budget = network()
    before = model.conv2.weight.detach().clone()
    mask = np.ones(24)
    mask[:8] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with MaskedTraining(program, model, optimizer, lambda _: Masks({"conv1.out": mask}, flow={"conv1.out": mask}), steps=2, budget=budget):
        train(model, optimizer, 2)
    torch.testing.assert_close(model.conv2.weight[:, :8].detach(), before[:, :8])
    assert not torch.equal(model.conv2.weight[:, 8:].detach(), before[:, 8:])
    model, program, budget = network()
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    with MaskedTraining(program, model, frozen, lambda _: Masks({"conv1.out": mask}, decay=0.5), steps=3, budget=budget):
        train(model, frozen, 3)
    torch.testing.assert_close(model.conv2.weight[:, :8].detach(), before[:, :8] / 8)
    torch.testing.assert_close(model.conv2.weight[:, 8:].detach(), before[:, 8:])


SCHEDULES: dict[str, Schedule] = {
    "one-shot": OneShot(after=2),
    "iterative": Iterative(times=3, every=3),
    "gmp": Gmp(begin=1, end=10, every=3),
    "sfp": Soft(epoch=4),
    "asfp": Soft(epoch=4, rising=True),
    "smcp": SoftMask(every=2),
    "explore": ExploreExploit(every=4, explore=1),
    "epi": EarlyStop(every=1),
    "mask sparsity": MaskSparsity(),
    "autosparse": AutoSparse(every=4),
    "gates": Gates(),
    "thresholds": Thresholds(),
    "primal-dual": PrimalDual(),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_ends_within_the_budget_and_the_cut_equals_the_mask(name: str) -> None:
    model, program, budget = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with MaskedTraining(program, model, optimizer, SCHEDULES[name], steps=12, budget=budget) as training:
        train(model, optimizer, 12)
        plan = training.plan()
        model.eval()
        x = batch(99)[0]
        with torch.no_grad():
            masked = model(x)
    sizes = plan.sizes()
    assert sizes
    assert budget.seconds(sizes) <= budget.goal * (1 + 1e-9)
    pruned = carry_out(bh.trace(model, torch.randn(1, 1, 8, 8)), plan)
    with torch.no_grad():
        torch.testing.assert_close(pruned.model.eval()(x), masked, rtol=1e-4, atol=1e-5)


def test_the_optimizer_goes_on_with_its_state_sliced() -> None:
    """One step after the cut equals one step of the masked dense network, momentum and all."""
    model, program, _ = network()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() <= 1]},
        ],
        lr=1e-2,
    )
    train(model, optimizer, 3)
    plan = bh.prune(program, {"conv1.out": range(0, 24, 2)})
    after = cut_optimizer(optimizer, program, plan.plan, model, plan.model)
    assert [g["weight_decay"] for g in after.param_groups] == [0.1, 0.01]
    names = dict(plan.model.named_parameters())
    dense = dict(model.named_parameters())
    for name, kept in {
        "conv1.weight": (slice(0, 24, 2),),
        "conv2.weight": (slice(None), slice(0, 24, 2)),
        "head.bias": (slice(None),),
    }.items():
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(after.state[names[name]][key], optimizer.state[dense[name]][key][kept])
        assert float(after.state[names[name]]["step"]) == 3
    train(plan.model.train(), after, 1)  # goes on
    with pytest.raises(DataError, match="does not have"):
        cut_optimizer(torch.optim.SGD(Net().parameters(), lr=0.1), program, plan.plan, model, plan.model)


def test_sharpness_moves_further_where_an_index_is_likely_to_go() -> None:
    model, program, budget = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with MaskedTraining(program, model, optimizer, lambda _: Masks(), steps=5, budget=budget, criterion="l2") as training:
        sharp = SharpnessAware(training, radius=0.1, most=4.0)
        x, y = batch()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        sharp.step(lambda: F.cross_entropy(model(x), y), {"conv1.out": np.arange(24.0)})
        torch.testing.assert_close({n: p.detach() for n, p in model.named_parameters()}, before)  # it comes back from the perturbation
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), y))
        moves = {id(p): m for p, m in sharp.perturbation({"conv1.out": np.arange(24.0)})}
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        grad, move = model.conv2.weight.grad, moves[id(model.conv2.weight)]
        assert grad is not None
        torch.testing.assert_close(move[:, 0], 0.1 * 4 * grad[:, 0] / norm)
        torch.testing.assert_close(move[:, 23], 0.1 * grad[:, 23] / norm)


def test_what_does_not_fit_is_refused() -> None:
    model, program, budget = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(OptionError, match="hap runs the network itself"):
        MaskedTraining(program, model, optimizer, OneShot(), steps=1, budget=budget, criterion="hap")
    with pytest.raises(OptionError, match="did you mean taylor"):
        MaskedTraining(program, model, optimizer, OneShot(), steps=1, budget=budget, criterion="tailor")
    with pytest.raises(DataError, match="has no parameter"):
        MaskedTraining(program, nn.Linear(2, 2), optimizer, OneShot(), steps=1, budget=budget)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(DataError, match="frozen"):
        MaskedTraining(program, model, optimizer, OneShot(), steps=1, budget=budget)


def test_the_slope_is_a_difference_of_the_latency_surface() -> None:
    _, _, budget = network()
    sizes = {"conv1.out": 16, "stem.out": 16}
    slope = (budget.seconds(sizes) - budget.seconds({**sizes, "conv1.out": 8})) / 8
    assert budget.slopes(sizes)["conv1.out"] == pytest.approx(slope)
