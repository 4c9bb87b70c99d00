"""The partitioner and the code generator agree on what has a template."""

import pytest
from kernel_workloads import ZEN4, WorkloadBuilder, wrong
from small_networks import NETWORKS, program

from billhook.codegen import lower
from billhook.codegen.cpu.pointwise import OPERATORS
from billhook.costmodel.operators import FUSIBLE
from billhook.costmodel.partition import partition
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.normalise import normalise_for_inference

TARGET = Target(mcpu="znver4")

# What has no template: shuffles, class tokens, patch merging, pooling of row-major tensors.
GENERATED = {"shufflenet": 9, "convnext": 1, "vit": 1, "swin": 3}


def test_what_is_fused_can_be_fused() -> None:
    assert set(OPERATORS) >= FUSIBLE


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_have_templates_where_the_partitioner_counts_on_them(name: str) -> None:
    kernels = partition(normalise_for_inference(program(name).graph), TARGET).network.kernels
    found = [(k.name, lower.candidates(k.workload, TARGET)) for k in kernels]
    assert [name for name, candidates in found if not candidates] == []
    assert sum(candidates[0].template == "generic" for _, candidates in found) == GENERATED.get(name, 0)


def _change(channels: int, inward: bool) -> Workload:
    b = WorkloadBuilder()
    if inward:
        b.call("billhook.layout", b.call("aten.permute.default", b.tensor(2, 3, 5, channels), (0, 3, 1, 2)))
        return b.finish(2, channels, 3, 5, blocked=True)
    b.call("aten.permute.default", b.call("billhook.layout", b.tensor(2, channels, 3, 5, blocked=True)), (0, 2, 3, 1))
    return b.finish(2, 3, 5, channels)


@pytest.mark.parametrize("inward", [True, False])
@pytest.mark.parametrize("channels", [5, 32, 61, 24])
def test_a_layout_change_with_the_channels_last_equals_torch(channels: int, inward: bool) -> None:
    workload = _change(channels, inward)
    (choice,) = lower.candidates(workload, ZEN4)
    assert choice.template == "transpose"
    assert wrong(workload, choice) is None
