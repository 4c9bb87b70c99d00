"""Kernels at other widths: what the width model predicts is what cutting, normalising and partitioning gives."""

import random
from collections.abc import Iterable

import pytest
import torch
from small_networks import NETWORKS, images, program
from torch import nn

from billhook.costmodel.family import widths_at
from billhook.costmodel.partition import partition
from billhook.costmodel.width_family import MOST, KernelFamily, kernels_of
from billhook.costmodel.widths import BATCH, WidthModel
from billhook.ir.capture import capture
from billhook.ir.errors import VerifyError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.cut import cut_graph
from billhook.passes.infer import infer_axes
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.removal import removable_axes

TARGET = Target()


def width_model(traced: Program) -> WidthModel:
    return WidthModel(traced, partition(normalise_for_inference(traced.graph), TARGET))


def real(traced: Program, plan: Plan) -> list[Workload]:
    """The kernels of the network after the cut, at the example's batch size."""
    network = partition(normalise_for_inference(cut_graph(traced, plan), traced.example), TARGET).network
    return [k.workload for k in network.kernels]


def random_plan(traced: Program, seed: int) -> Plan:
    """Random sizes, at least 2: a reshape of a dimension of 1 may be no reshape at all."""
    rng = random.Random(seed)
    chosen = [a for a in traced.axes if a.prunable and rng.random() < 0.8]
    return make_plan(traced, {a.name: sorted(rng.sample(range(a.size), rng.randint(min(2, a.size), a.size))) for a in chosen})


def layers(workloads: Iterable[Workload]) -> list[tuple[int, ...]]:
    """Weight shapes of the convolutions and linear maps, in order."""
    return [w.inputs[1].shape for w in workloads if w.anchor.op.startswith(("aten.conv", "aten.linear"))]


@pytest.mark.parametrize("name", NETWORKS)
def test_predicted_kernels_are_those_of_the_cut_network(name: str) -> None:
    traced = program(name)
    model = width_model(traced)
    assert [k.at({}) for k in model.kernels] == [k.workload for k in model.partition.network.kernels]
    plan = random_plan(traced, seed=len(name))
    assert plan.kept
    assert list(model.workloads({**plan.sizes(), BATCH: 1})) == real(traced, plan)


@pytest.mark.parametrize("name", ["resnet", "vit", "convnext", "mobilenet_v2"])
def test_a_removed_branch_takes_the_kernels_with_it_that_only_it_reads(name: str) -> None:
    traced = program(name)
    model = width_model(traced)
    removable = [a.name for a in removable_axes(traced)]
    assert removable
    for axis in removable[:3]:
        predicted, found = model.workloads({axis: 0, BATCH: 1}), real(traced, make_plan(traced, {axis: ()}))
        # what is left of a removed branch, its bias, may go into another kernel's epilogue or need one of its own
        assert abs(len(predicted) - len(found)) <= 1
        assert len(predicted) < len(model.kernels)
        assert layers(predicted) == layers(found)


class ChannelMean(nn.Module):
    """An average over a width keeps its dense divisor, so after a cut another operator computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 20), nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x))).mean(-1, keepdim=True).sigmoid()


class Split(nn.Module):
    """Parts of a packed projection, of unequal sizes, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(6, 24), nn.Linear(8, 5), nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = self.a(x).split([8, 16], -1)
        return self.b(left), self.norm(right).sum(-1)


class Recurrent(nn.Module):
    """Two recurrent layers, the first in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 9), nn.LSTM(9, 8, bidirectional=True), nn.GRU(16, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.c(self.b(self.a(x[None].expand(2, -1, -1)))[0])[1])


class Written(nn.Module):
    """A part of a tensor is written into, up to a place that follows a width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(6, 8), nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.new_zeros(x.shape[0], 20)
        y[:, :12] = self.a(x)
        y[:, 12:] = self.b(x)
        return self.c(y)


MODELS = {"channel-mean": ChannelMean(), "split": Split(), "recurrent": Recurrent(), "written": Written()}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("divisor", [2, 3])
def test_literals_and_operators_follow_the_widths(model: nn.Module, divisor: int) -> None:
    traced = infer_axes(capture(model.eval(), (torch.randn(3, 6),)))
    plan = make_plan(traced, {a.name: range(a.size // divisor) for a in traced.axes if a.prunable})
    assert len(plan.kept) >= 2
    assert list(width_model(traced).workloads({**plan.sizes(), BATCH: 3})) == real(traced, plan)


def test_a_partition_of_another_graph_is_refused() -> None:
    traced, other = program("resnet"), program("vgg")
    with pytest.raises(VerifyError, match="partition the captured graph itself"):
        WidthModel(traced, partition(normalise_for_inference(other.graph), TARGET))


@pytest.mark.parametrize("name", NETWORKS)
def test_families_give_the_same_kernels_over_few_coordinates(name: str) -> None:
    traced = program(name)
    model = width_model(traced)
    removable = {a.name for a in removable_axes(traced)}
    rng = random.Random(0)
    sizes = {a.name: rng.randint(1, a.size) if a.prunable else a.size for a in traced.axes}
    for kernel, shaped in zip(kernels_of(model, TARGET, {BATCH: 1}, removable), model.kernels, strict=True):
        family = kernel.family
        assert isinstance(family, KernelFamily)
        dense = widths_at(family.coordinates, {a.name: a.size for a in traced.axes})
        assert family.workload(dense) == shaped.at({BATCH: 1})
        assert len(family.coordinates) <= MOST
        assert len(family.steps) == len(family.coordinates)
        if all(len(axes) == 1 for axes in family.axes):  # otherwise an approximation
            assert family.workload(widths_at(family.coordinates, sizes)) == shaped.at({**sizes, BATCH: 1})


class _Skips(nn.Module):
    """Two levels of a U-net: what is first read last goes with any of the layers between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down, self.down2, self.coarse = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8, 8))
        self.up, self.up2, self.last = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.first(x))
        middle = torch.relu(self.down2(torch.relu(self.down(nn.functional.max_pool2d(fine, 2)))))
        low = torch.relu(self.coarse(nn.functional.max_pool2d(middle, 2)))
        middle = torch.relu(self.up2(torch.relu(self.up(torch.cat([nn.functional.interpolate(low, scale_factor=2.0), middle], 1)))))
        return self.last(torch.cat([nn.functional.interpolate(middle, scale_factor=2.0), fine], 1))


def test_kernels_that_go_with_many_axes_keep_few_coordinates() -> None:
    traced = infer_axes(capture(_Skips().eval(), (torch.randn(1, 3, 16, 16),)))
    model, removable = width_model(traced), {a.name for a in removable_axes(traced)}
    crowded = [k for k in model.kernels if len(set(k.gates) & removable - set(k.axes)) + len(set(k.axes) & removable) > MOST]
    assert crowded  # there are some
    dense = {a.name: a.size for a in traced.axes}
    for kernel, shaped in zip(kernels_of(model, TARGET, {BATCH: 1}, removable), model.kernels, strict=True):
        assert len(kernel.family.coordinates) <= MOST
        assert kernel.family.workload(widths_at(kernel.family.coordinates, dense)) == shaped.at({BATCH: 1})


def test_a_kernel_that_reads_a_concatenation_has_its_total_width_as_coordinate() -> None:
    families = {k.name: k.family for k in kernels_of(width_model(program("densenet")), TARGET, {BATCH: 1})}
    sums = [c for f in families.values() for c in f.coordinates if c.axis is None]
    assert sums
    transition = next(f for name, f in families.items() if name.startswith("conv") and any(c.axis is None for c in f.coordinates))
    total = transition.coordinates[0].at({a.name: a.size for a in program("densenet").axes})
    one = transition.workload((total - 1, *(8 for _ in transition.coordinates[1:])))
    assert one is not None
    assert one.inputs[0].shape[1] == one.inputs[1].shape[1] == total - 1


def test_channels_come_in_steps_and_heads_do_not() -> None:
    steps = {
        c.axis: s
        for k in kernels_of(width_model(program("vit")), TARGET, {BATCH: 1})
        for c, s in zip(k.family.coordinates, k.family.steps, strict=True)
        if c.axis is not None
    }
    heads = [axis for axis in steps if "in_proj" in axis]
    assert heads
    assert {steps[axis] for axis in heads} == {1}
    channels = {
        s for k in kernels_of(width_model(program("resnet")), TARGET, {BATCH: 1}) if k.name.startswith("conv") for s in k.family.steps
    }
    assert channels == {TARGET.width_step}


def test_the_model_takes_any_batch_size() -> None:
    model, x = width_model(program("resnet")), images("resnet", 5)
    network = partition(normalise_for_inference(cut_graph(program("resnet"), Plan({})), ((x,), {})), TARGET).network
    assert list(model.workloads({BATCH: 5})) == [k.workload for k in network.kernels]
