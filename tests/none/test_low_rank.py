"""Low-rank implants: two layers equal one at full rank, the truncated decomposition below it, and are chosen where they pay."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.ir.errors import AxisError
from billhook.ir.planfile import save_plan
from billhook.ir.program import Program, state_of
from billhook.ir.target import Target
from billhook.passes.allocate import evaluate, solve
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.low_rank import full_rank, implant, implant_by_name, implantable, rank_name, rank_sizes
from billhook.passes.low_rank_choice import chosen_layers, with_both_forms
from billhook.passes.oracle import cut_error
from billhook.passes.reader_features import ROWS, second_moments
from billhook.passes.readers import Reader
from billhook.passes.saliency import Data
from billhook.passes.width_problem import width_problem

TARGET = Target()


class Mixed(nn.Module):
    """A strided convolution with a window, a pointwise one without bias, and a linear map; x: [N, 3, 9, 9]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.point = nn.Conv2d(24, 16, 1, bias=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.point(F.relu(self.conv(x)))).mean((2, 3)))


class Tied(nn.Module):
    """One weight that two layers read; x: [N, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both(F.relu(self.both(x)))


def mixed() -> tuple[Program, torch.Tensor, Data]:
    torch.manual_seed(0)
    model, x = Mixed().double().eval(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    batch = torch.randn(16, 3, 9, 9, dtype=torch.float64), torch.zeros(16, dtype=torch.int64)
    return bh.trace(model, x), x, Data([batch], F.cross_entropy, 1)


def means(program: Program, layers: Sequence[Reader], data: Data) -> dict[str, torch.Tensor]:
    return {node: moment.mean for node, moment in second_moments(program, layers, data, ROWS).items()}


@pytest.mark.parametrize("weighted", [False, True])
def test_full_rank_is_the_layer_itself(weighted: bool) -> None:
    program, x, data = mixed()
    layers = implantable(program)
    assert [layer.weight for layer in layers] == ["conv.weight", "point.weight", "head.weight"]
    assert [full_rank(program, layer) for layer in layers] == [24, 16, 10]
    found = implant(program, layers, means(program, layers, data) if weighted else {})
    assert torch.allclose(found.graph(x), program.graph(x), rtol=0, atol=1e-10)
    for layer in layers:
        axis = found.axis(rank_name(layer))
        assert (axis.size, axis.prunable) == (full_rank(program, layer), True)
    assert cut_error(found, bh.prune(found, {rank_name(layers[0]): range(5)}).plan) < 1e-10


@pytest.mark.parametrize(("place", "rank"), [(0, 7), (1, 5), (2, 3)])
def test_a_cut_rank_is_the_best_approximation_on_the_data(place: int, rank: int) -> None:
    """E ||W x - W' x||^2 of the cut layer is what the discarded singular values of W C^(1/2) add up to, C the second moments."""
    program, _, data = mixed()
    layer = implantable(program)[place]
    moments = means(program, (layer,), data)[layer.node]
    weight = state_of(program.graph, layer.weight).detach().flatten(1)
    small = bh.prune(implant(program, (layer,), {layer.node: moments}), {rank_name(layer): range(rank)})
    state = small.program.state()
    made = state[layer.weight].flatten(1) @ state[layer.weight.replace(".weight", ".rank.weight")].flatten(1)
    off = made.detach() - weight
    energy = torch.linalg.svdvals(weight @ torch.linalg.cholesky(moments + 1e-9 * torch.eye(len(moments))))
    assert float((off @ moments * off).sum()) == pytest.approx(float((energy[rank:] ** 2).sum()), rel=1e-3)
    plain = bh.prune(implant(program, (layer,), {}), {rank_name(layer): range(rank)}).program.state()
    product = plain[layer.weight].flatten(1) @ plain[layer.weight.replace(".weight", ".rank.weight")].flatten(1)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    assert torch.allclose(product.detach(), left[:, :rank] * values[:rank] @ right[:rank], atol=1e-10)


def test_tied_weights_stay_whole() -> None:
    program = bh.trace(Tied().eval(), torch.randn(2, 8))
    assert implantable(program) == ()
    with pytest.raises(AxisError, match="which is the weight of no linear map"):
        implant_by_name(program, ("both.weight",))


def test_a_saved_plan_knows_its_factors(tmp_path: Path) -> None:
    program, x, _ = mixed()
    factored = implant(program, implantable(program)[1:], {})
    pruned = bh.prune(factored, {"point.rank.out": range(4), "conv.out": range(0, 24, 2)})
    assert (pruned.form, "low-rank" in pruned.why_graph) == ("graph", True)
    save_plan(tmp_path / "saved", pruned.plan, factored, pruned.model)
    loaded = bh.load(tmp_path / "saved", lambda: Mixed().double())
    assert torch.equal(loaded(x), pruned.model(x))


class Wide(nn.Module):
    """Three square layers, of which the second has a rank of 8; x: [N, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.thin, self.last = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.copy_(torch.linalg.qr(torch.randn(256, 256))[0])
            self.thin.weight.copy_(torch.randn(256, 8) @ torch.randn(8, 256) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.thin(F.relu(self.first(x)))))


def test_the_implant_is_chosen_where_it_pays() -> None:
    """At full rank the problem is the dense network's; below, only the layer whose energy is in a few directions is factored."""
    torch.manual_seed(0)
    program = bh.trace(Wide().eval(), torch.randn(4, 256))
    layers = implantable(program)
    both = implant(program, layers, {})
    candidates = rank_sizes(both, candidate_sizes(both, TARGET))
    before = dict(candidate_sizes(program, TARGET))
    (dense,) = static_tables(network_kernels(program, before, TARGET), before, Roofline())
    (pairs,) = static_tables(network_kernels(both, candidates, TARGET), candidates, Roofline())
    worth = {a.name: np.linspace(0, 1, a.size + 1) for a in program.axes}
    for layer in layers:
        energy = torch.linalg.svdvals(state_of(program.graph, layer.weight).detach()).square().numpy()
        worth[rank_name(layer)] = np.concatenate([[0.0], np.cumsum(energy / energy.sum())])
    plain = width_problem(program, worth, before, dense)
    problem, offered = with_both_forms(width_problem(both, worth, candidates, pairs), program, layers, candidates, dense)
    assert set(offered) == {rank_name(layer) for layer in layers}
    whole = {n: v.sizes[-1] for n, v in problem.variables.items()}
    seconds = evaluate(plain, {n: v.sizes[-1] for n, v in plain.variables.items()}).seconds
    assert evaluate(problem, whole).seconds == pytest.approx(seconds, rel=1e-12)
    found = solve(problem, 0.75 * seconds)
    assert [layer.weight for layer in chosen_layers(found.sizes, offered, program)] == ["thin.weight"]
    assert found.sizes["thin.rank.out"] == problem.variables["thin.rank.out"].sizes[0]
    assert found.value > solve(plain, 0.75 * seconds).value + sum(float(worth[r][-1]) for r in offered) - 1e-9
