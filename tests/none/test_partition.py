"""Partition: networks of kernels compute what the models compute, in the layouts and kernels that they should."""

import copy

import pytest
import torch
from small_networks import NETWORKS, images, network, program
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from billhook.costmodel.partition import Partition, partition
from billhook.ir.capture import capture
from billhook.ir.network import Network
from billhook.ir.reference import run_network
from billhook.ir.target import Target
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.oracle import relative_error

TARGET = Target()


def partitioned(model: nn.Module, *inputs: torch.Tensor, target: Target = TARGET) -> Partition:
    captured = capture(model.eval(), inputs)
    return partition(normalise_for_inference(captured.graph, captured.example), target)


def anchors(net: Network) -> list[str]:
    return [k.workload.anchor.op.split(".")[1] for k in net.kernels]


def layouts(net: Network) -> int:
    return sum(any(c.op == "billhook.layout" for c in k.workload.calls) for k in net.kernels)


def agrees(net: Network, model: nn.Module, *inputs: torch.Tensor) -> bool:
    """Whether a network is as close to the model in float64 as the model in float32 is, or within 1e-5."""
    with torch.no_grad():
        expected, exact = (
            pytree.tree_leaves(f(*xs)) for f, xs in ((model, inputs), (copy.deepcopy(model).double(), [x.double() for x in inputs]))
        )
        return relative_error(list(run_network(net, inputs)), exact) < max(1e-5, 2 * relative_error(expected, exact))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_kernels_compute_what_the_model_computes(name: str) -> None:
    net = partition(normalise_for_inference(program(name).graph), TARGET).network
    assert agrees(net, network(name), images(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_is_read_as_it_was_written(name: str) -> None:
    found = partition(normalise_for_inference(program(name).graph), TARGET)
    stored = dict(found.network.inputs)
    for kernel, origins in zip(found.network.kernels, found.calls, strict=True):
        workload = kernel.workload
        for value, given, role in zip(kernel.inputs, workload.inputs, workload.roles, strict=True):
            if role == "activation":
                assert stored[value] == given
            else:
                assert tuple(found.network.constants[value].shape) == given.shape
        for given in (*workload.inputs, workload.output):
            assert given.block in (0, TARGET.channel_block(given.shape[1]) if len(given.shape) > 1 else 0)
        assert kernel.output not in stored
        assert len(origins) == len(workload.calls)
        stored[kernel.output] = workload.output
    read = {name for kernel in found.network.kernels for name in kernel.inputs} | set(found.network.outputs)
    assert {kernel.output for kernel in found.network.kernels} <= read, "a kernel that nothing reads"
    assert all(stored[output].block == 0 for output in found.network.outputs)


# What has no template: norms, attention, and what shuffles or pools row-major tensors. Layout changes: only where these begin.
EXPECTED = {
    "resnet": (17, 0, {"conv2d", "max_pool2d", "adaptive_avg_pool2d", "linear"}),
    "vgg": (13, 0, {"conv2d", "max_pool2d", "adaptive_avg_pool2d", "reshape", "linear"}),
    "mobilenet_v2": (54, 0, {"conv2d", "adaptive_avg_pool2d", "linear"}),
    "mobilenet_v3": (73, 0, {"conv2d", "adaptive_avg_pool2d", "mul", "linear"}),
    "densenet": (28, 0, {"conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mul", "cat", "linear"}),
    "googlenet": (81, 0, {"conv2d", "max_pool2d", "adaptive_avg_pool2d", "cat", "linear"}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_convolutional_networks_need_no_layout_changes_and_only_templates(name: str) -> None:
    net = partition(normalise_for_inference(program(name).graph), TARGET).network
    assert (len(net.kernels), layouts(net), set(anchors(net))) == EXPECTED[name]


def test_a_transformer_is_linear_maps_norms_and_attention() -> None:
    net = partition(normalise_for_inference(program("vit").graph), TARGET).network
    block = ["layer_norm", "linear", "reshape", "linear", "layer_norm", "linear", "linear"]  # attention begins with the moves of its input
    assert anchors(net) == ["conv2d", "layout", "reshape", *block, *block, "layer_norm", "linear"]
    attention = [k.workload for k in net.kernels if any("attention" in c.op for c in k.workload.calls)]
    assert [len(w.inputs) for w in attention] == [1, 1]


def test_a_block_of_convnext_changes_the_layout_twice() -> None:
    net = partition(normalise_for_inference(program("convnext").graph), TARGET).network
    found = anchors(net)
    start = found.index("conv2d", 1)
    assert found[start : start + 7] == ["conv2d", "layout", "layer_norm", "linear", "linear", "permute", "conv2d"]
    assert [c.op for c in net.kernels[start + 1].workload.calls] == ["billhook.layout", "aten.permute.default"]
    assert [c.op for c in net.kernels[start + 5].workload.calls] == ["aten.permute.default", "billhook.layout"]


class Residual(nn.Module):
    """Stem and one residual block; the shortcut is the later producer of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv1, self.conv2 = nn.Conv2d(24, 40, 3, 2, 1), nn.Conv2d(24, 40, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        return F.relu(self.conv1(x) + self.conv2(x)).mean((2, 3))


GOLDEN = """\
network(x: float32[2,3,8,8]) -> mean
  relu = conv2d[x, stem.folded_weight, stem.folded_bias] (%0: float32[2,3,8,8], \
w%1: float32[24,3,3,3], w%2: float32[24]) -> float32[2,24,8,8]c8 \
{ %3 = aten.conv2d.default(%0, %1, %2, [1, 1], [1, 1], [1, 1], 1); %4 = aten.relu.default(%3) }
  conv2d_1 = conv2d_1[relu, conv1.weight, conv1.bias] (%0: float32[2,24,8,8]c8, \
w%1: float32[40,24,3,3], w%2: float32[40]) -> float32[2,40,4,4]c8 \
{ %3 = aten.conv2d.default(%0, %1, %2, [2, 2], [1, 1], [1, 1], 1) }
  relu_1 = conv2d_2[relu, conv2.weight, conv2.bias, conv2d_1] (%0: float32[2,24,8,8]c8, w%1: float32[40,24,1,1], w%2: float32[40], \
%3: float32[2,40,4,4]c8) -> float32[2,40,4,4]c8 { %4 = aten.conv2d.default(%0, %1, %2, [2, 2], [0, 0], [1, 1], 1); \
%5 = aten.add.Tensor(%3, %4, alpha=1); %6 = aten.relu.default(%5) }
  mean = mean[relu_1] (%0: float32[2,40,4,4]c8) -> float32[2,40] { %1 = aten.mean.dim(%0, [2, 3], False, dtype=None) }"""


def test_golden_text_of_a_residual_network() -> None:
    assert str(partitioned(Residual(), torch.randn(2, 3, 8, 8)).network) == GOLDEN


class Mixed(nn.Module):
    """A map that blocked and generated kernels read: a softmax over channels beside a convolution, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.a(x)
        soft, again = y.softmax(1), y.cumsum(1)
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        return (self.b(y + soft) * gate).flip(3), again


def test_a_layout_change_is_made_once_for_all_its_readers() -> None:
    model, x = Mixed(), torch.randn(2, 3, 9, 9)
    net = partitioned(model, x).network
    assert agrees(net, model, x)
    out = [k.output for k in net.kernels if k.workload.anchor.op == "billhook.layout"]
    assert out.count("conv2d.row_major") == 1
    assert sorted(out) == sorted({"conv2d.row_major", "softmax.blocked", "mul.row_major"})


def test_a_gate_is_fused_where_it_is_ready_and_a_foreign_operator_is_not() -> None:
    net = partitioned(Mixed(), torch.randn(2, 3, 9, 9)).network
    by_output = {k.output: [c.op.split(".")[1] for c in k.workload.calls] for k in net.kernels}
    assert by_output["mul"] == ["conv2d", "mul"]
    assert by_output["sigmoid"] == ["conv2d", "sigmoid"]
    assert by_output["cumsum"] == ["cumsum"]


class Grouped(nn.Module):
    """Grouped and depthwise convolutions with a group norm between them, and a map that is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 16, 3, groups=16)
        self.norm, self.map = nn.GroupNorm(4, 16), nn.Parameter(torch.randn(1, 16, 7, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(F.relu(self.norm(self.b(self.a(x)))) + self.map)


def test_grouped_convolutions_and_group_norms_are_blocked_as_the_constants_are_that_they_meet() -> None:
    model, x = Grouped(), torch.randn(1, 3, 9, 9)
    net = partitioned(model, x).network
    assert agrees(net, model, x)
    assert anchors(net) == ["conv2d", "conv2d", "group_norm", "conv2d", "layout"]
    norm = net.kernels[2].workload
    assert [c.op for c in norm.calls] == ["aten.group_norm.default", "aten.relu.default", "aten.add.Tensor"]
    assert {t.block for t in (norm.inputs[0], norm.inputs[3], norm.output)} == {16}


def test_a_convolution_that_groups_the_channels_of_the_input_reads_them_blocked() -> None:
    model, x = nn.Conv2d(6, 16, 3, groups=2), torch.randn(1, 6, 9, 9)
    net = partitioned(model, x).network
    assert agrees(net, model, x)
    assert anchors(net) == ["layout", "conv2d", "layout"]


class Outputs(nn.Module):
    """Outputs that are a view, an input of another kernel, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.table = nn.Linear(6, 8), nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.a(x)
        return y.view(-1, 2, 4).transpose(1, 2), y, self.table * 2


def test_outputs_may_be_moves_inner_values_and_constants() -> None:
    model, x = Outputs(), torch.randn(3, 6)
    net = partitioned(model, x).network
    assert agrees(net, model, x)
    assert anchors(net) == ["linear", "reshape"]


def test_a_narrow_target_has_its_own_blocks() -> None:
    target = Target(lanes=4, fine_lanes=4)
    net = partitioned(Residual(), torch.randn(2, 3, 8, 8), target=target).network
    assert {t.block for k in net.kernels for t in k.workload.inputs if t.block} == {4}
