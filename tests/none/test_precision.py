"""Which values become narrow: the largest set for which the target has every kernel, decided without changing anything."""

from dataclasses import replace

import torch
from torch import nn

from billhook.costmodel.partition import Partition, partition
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.precision import narrow_values, precision_of


class Net(nn.Module):
    """Four kernels in a row: convolution, pooling, convolution, linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(nn.functional.max_pool2d(self.first(x).relu(), 2)).relu()
        return self.last(x.mean((2, 3)))


def _partition() -> Partition:
    program, _ = run_passes(capture(Net().eval(), (torch.randn(1, 3, 16, 16),), {}), ANALYSIS)
    graph = cut_graph(program, Plan({}))
    return partition(normalise_for_inference(graph, program.example), Target())


def _types(given: Partition) -> dict[str, str]:
    return {k.output: k.workload.output.dtype for k in given.network.kernels}


def test_everything_between_input_and_output_becomes_narrow() -> None:
    before = _partition()
    after = narrow_values(before, lambda _: True)
    *inner, last = _types(after).values()
    assert set(inner) == {"bfloat16"}
    assert last == "float32"
    assert [k.workload.inputs[0].dtype for k in after.network.kernels] == ["float32", *["bfloat16"] * len(inner)]
    assert {
        t.dtype for k in after.network.kernels for t, r in zip(k.workload.inputs, k.workload.roles, strict=True) if r == "parameter"
    } == {"float32"}
    assert set(_types(before).values()) == {"float32"}


def test_a_kernel_without_a_template_keeps_what_it_reads_and_writes_in_float32() -> None:
    def covered(workload: Workload) -> bool:
        narrow = "bfloat16" in [t.dtype for t in (*workload.inputs, workload.output)]
        return not (narrow and workload.anchor.op == "aten.max_pool2d.default")

    after = narrow_values(_partition(), covered)
    found = {k.workload.anchor.op: [k.workload.inputs[0].dtype, k.workload.output.dtype] for k in after.network.kernels}
    assert found["aten.max_pool2d.default"] == ["float32", "float32"]
    assert found["aten.conv2d.default"] == ["float32", "bfloat16"]  # the second one
    report = precision_of(after.network)
    assert any("max_pool" in name for name in report.full)
    assert "float32: " in str(report)


def test_where_nothing_is_covered_nothing_changes() -> None:
    before = _partition()
    assert narrow_values(before, lambda w: all(t.dtype == "float32" for t in w.inputs)).network.kernels[1:] == before.network.kernels[1:]
    assert narrow_values(before, lambda _: False).network.kernels == before.network.kernels


def test_networks_of_both_precisions_share_no_workload_key() -> None:
    before = _partition()
    after = narrow_values(before, lambda _: True)
    assert not {k.workload.key for k in before.network.kernels} & {k.workload.key for k in after.network.kernels}
    assert replace(after, network=before.network) == before
