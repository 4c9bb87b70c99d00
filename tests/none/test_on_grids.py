"""Which values are put on grids, what kernels are told of them, and that the reference knows the same."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from billhook.compiler.calibration import SAMPLES, calibration_batches
from billhook.costmodel.partition import Partition, partition
from billhook.costmodel.widths import WidthModel
from billhook.costmodel.work import kernel_bytes, kernel_flops
from billhook.ir.capture import capture
from billhook.ir.errors import DataError
from billhook.ir.grids import QUINT8, grids_input, on_grid, with_grids, without_grids
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.on_grids import OnGrids, put_on_grids
from billhook.passes.quantise import observe
from billhook.passes.quantise_reference import run_quantised

IMAGE = (1, 3, 16, 12)


class Net(nn.Module):
    """A convolution on the image, a pooling, a residual block, a norm over channels that only a sum reads, a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.max_pool2d(self.first(x).relu(), 2)
        y = (self.third(self.second(y).relu()) + y).mean((2, 3))
        return self.last(self.norm(y) + y)


def _program() -> tuple[Program, Partition]:
    program, _ = run_passes(capture(Net().eval(), (torch.randn(IMAGE),), {}), ANALYSIS)
    return program, partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), Target())


def _batches(count: int = 3) -> list[tuple[torch.Tensor, ...]]:
    return [(torch.randn(IMAGE),) for _ in range(count)]


def _found(given: Partition, lacking: str = "") -> OnGrids:
    """With kernels for everything but one operator; convolutions and linear maps multiply integers."""

    def covered(workload: Workload) -> bool:
        return not (lacking and on_grid(workload) and workload.anchor.op == lacking)

    return put_on_grids(given, observe(given.network, _batches()), covered, lambda w: "conv" in w.anchor.op or "linear" in w.anchor.op)


def _on_grids(given: Partition) -> dict[str, bool]:
    return {k.workload.anchor.op + str(i): k.workload.output.dtype == QUINT8 for i, k in enumerate(given.network.kernels)}


def test_what_a_convolution_or_a_linear_map_reads_is_on_a_grid_and_little_else() -> None:
    _, real = _program()
    found = _found(real)
    by_output = {k.output: k for k in found.partition.network.kernels}
    wanted = {k.inputs[0] for k in real.network.kernels if k.output in found.quantisation.kernels}
    passed_on = {k.inputs[0] for k in by_output.values() if "max_pool" in k.workload.anchor.op}
    assert wanted | passed_on == set(found.quantisation.grids)
    ((image, _),) = real.network.inputs
    stored = {k.output for k in by_output.values() if k.workload.output.dtype == QUINT8}
    assert stored == set(found.quantisation.grids) - {image} | {f"{image}.bytes"}
    assert by_output[real.network.outputs[0]].workload.output.dtype == "float32"
    assert len(found.quantisation.kernels) == 4
    entry, first, *_ = found.partition.network.kernels  # the image is put on its grid first, in blocks of channels
    assert [str(t) for t in (entry.workload.inputs[0], entry.workload.output)] == ["float32[1,3,16,12]", "quint8[1,3,16,12]c8"]
    assert first.inputs[0] == entry.output
    assert not any(t.dtype == QUINT8 for k in real.network.kernels for t in k.workload.inputs)  # the given one is as it was


def test_kernels_are_told_the_grids_of_their_tensors_in_order() -> None:
    _, real = _program()
    found = _found(real)
    network, grids = found.partition.network, dict(found.quantisation.grids)
    grids |= {f"{n}.bytes": g for n, g in grids.items()}
    for kernel in network.kernels:
        last = grids_input(kernel.workload)
        if last is None:
            continue
        names = [(*kernel.inputs[:-1], kernel.output)[i] for i in on_grid(without_grids(kernel.workload))]
        assert torch.equal(network.constants[kernel.inputs[last]], torch.tensor([[grids[n].step, grids[n].zero] for n in names]))


def test_a_pooling_keeps_the_grid_so_that_it_is_exact() -> None:
    _, real = _program()
    found = _found(real)
    kernel = next(k for k in found.partition.network.kernels if "max_pool" in k.workload.anchor.op)
    assert found.quantisation.grids[kernel.inputs[0]] == found.quantisation.grids[kernel.output]


def test_a_kernel_without_a_template_keeps_its_values_real() -> None:
    _, real = _program()
    found = _found(real, "aten.max_pool2d.default")
    types = _on_grids(found.partition)
    assert not any(narrow for op, narrow in types.items() if "max_pool" in op)
    assert any(types.values())
    nothing = put_on_grids(real, observe(real.network, _batches()), lambda w: not on_grid(w), lambda _: True)
    assert nothing.partition.network.kernels == real.network.kernels
    assert not nothing.quantisation.grids


def test_an_input_that_real_kernels_read_stays_real() -> None:
    _, real = _program()
    found = put_on_grids(real, observe(real.network, _batches()), lambda _: True, lambda w: len(w.inputs[0].shape) == 2)
    assert found.partition.network.kernels[0].workload.inputs[0].dtype == "float32"
    assert real.network.inputs[0][0] not in found.quantisation.grids


def test_the_reference_computes_near_the_real_network_and_differs_from_it() -> None:
    _, real = _program()
    found = _found(real)
    (inputs,) = _batches(1)
    expected = run_quantised(real.network, replace(found.quantisation, grids={}, kernels=frozenset()), inputs)[0]
    error = (run_quantised(real.network, found.quantisation, inputs)[0] - expected).abs().max() / expected.abs().max()
    assert 1e-5 < float(error) < 0.1


def test_widths_and_work_of_kernels_on_grids() -> None:
    program, real = _program()
    found = _found(real)
    model = WidthModel(program, found.partition)  # which checks that its kernels are the network's
    assert len(model.kernels) == len(found.partition.network.kernels)
    for before, after in zip(real.network.kernels, found.partition.network.kernels[1:], strict=True):
        assert kernel_flops(before.workload) == kernel_flops(after.workload)
        if on_grid(after.workload):
            assert kernel_bytes(after.workload) < kernel_bytes(before.workload)


def test_references_are_renumbered_there_and_back() -> None:
    _, real = _program()
    for kernel in real.network.kernels:
        narrow = replace(kernel.workload, output=replace(kernel.workload.output, dtype=QUINT8))
        assert without_grids(with_grids(narrow)) == narrow
        assert with_grids(kernel.workload) == kernel.workload


def test_calibration_takes_the_example_or_pieces_of_the_data() -> None:
    example: tuple[tuple[torch.Tensor], dict[str, torch.Tensor]] = ((torch.randn(2, 3),), {})
    (alone,) = calibration_batches(None, example)
    assert torch.equal(alone[0], example[0][0])
    data = [(torch.randn(5, 3), torch.zeros(5))] * 40
    found = calibration_batches(data, example)
    assert len(found) == SAMPLES
    assert all(t.shape == (2, 3) for (t,) in found)
    with pytest.raises(DataError, match="has the 2 samples"):
        calibration_batches([(torch.randn(1, 3), torch.zeros(1))], example)
    with pytest.raises(DataError, match="shapes"):
        calibration_batches([(torch.randn(4, 7), torch.zeros(4))], example)
