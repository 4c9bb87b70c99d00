"""Quantisation: grids hold zero exactly, the integer reference is exact, and a quantised network is near the real one."""

import pytest
import torch
from torch import nn

from billhook.costmodel.partition import partition
from billhook.ir.capture import capture
from billhook.ir.errors import DataError
from billhook.ir.network import Network
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.reference import run_network
from billhook.ir.target import Target
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.quantise import Grid, Range, observe, quantise, quantise_weight, symmetric_grid, unsigned_grid
from billhook.passes.quantise_reference import integer_sums, run_quantised


class Net(nn.Module):
    """Convolutions with a residual and a signed value, a pooling, a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y = nn.functional.relu(self.second(y) + y)
        return self.last(nn.functional.max_pool2d(y, 2).mean((2, 3)))


IMAGE = (1, 3, 12, 10)


def _network() -> Network:
    program, _ = run_passes(capture(Net().eval(), (torch.randn(IMAGE),), {}), ANALYSIS)
    return partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), Target()).network


def _batches(count: int) -> list[tuple[torch.Tensor, ...]]:
    return [(torch.randn(IMAGE),) for _ in range(count)]


@pytest.mark.parametrize("found", [Range(0.0, 6.0), Range(-0.3, 2.0), Range(-1.0, 0.0), Range(0.0, 0.0)])
def test_zero_is_on_every_grid_and_an_error_is_at_most_half_a_step(found: Range) -> None:
    values = torch.linspace(found.low, found.high, 1001, dtype=torch.float64)
    for grid in (unsigned_grid(found), symmetric_grid(found)):
        assert float(grid.real(grid.quantise(torch.zeros(())))) == 0.0
        assert float((grid.real(grid.quantise(values)) - values).abs().max()) <= grid.step / 2 + 1e-12
        integers = grid.quantise(values * 3)
        assert grid.least <= float(integers.min()) <= float(integers.max()) <= grid.most


def test_weights_have_a_step_per_channel() -> None:
    weight = torch.randn(4, 3, 2, 2) * torch.tensor([1.0, 10.0, 0.1, 0.0]).reshape(4, 1, 1, 1)
    found = quantise_weight("w", weight)
    steps = torch.as_tensor(found.steps).reshape(4, 1, 1, 1)
    assert float(((torch.as_tensor(found.integers) * steps - weight).abs() / steps).max()) <= 0.5 + 1e-6
    with pytest.raises(DataError, match="weight 'w' is not finite"):
        quantise_weight("w", weight / 0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_quantised_network_is_near_the_real_one(symmetric: bool) -> None:
    network = _network()
    quantisation = quantise(network, observe(network, _batches(4)), symmetric=symmetric)
    assert len(quantisation.kernels) == 3
    assert "3 kernels in int8" in str(quantisation)
    inputs = (torch.randn(IMAGE),)
    real = run_network(network, inputs)[0]
    error = (run_quantised(network, quantisation, inputs)[0] - real).abs().max() / real.abs().max()
    assert 1e-6 < float(error) < 0.05


@pytest.mark.parametrize("symmetric", [False, True])
def test_sums_equal_integer_arithmetic(symmetric: bool) -> None:
    network = _network()
    quantisation = quantise(network, observe(network, _batches(1)), symmetric=symmetric)
    kernel = network.kernels[0]
    grid = quantisation.grids[kernel.inputs[0]]
    data = grid.quantise(torch.randn(IMAGE))
    sums = integer_sums(network, quantisation, kernel, data)
    weight = torch.as_tensor(next(w for n, w in quantisation.weights.items() if n in kernel.inputs).integers).int()
    windows = nn.functional.unfold((data - grid.zero).float(), 3, padding=1).int()  # [1, 27, pixels]: small integers are exact
    expected = torch.einsum("oi,bip->bop", weight.reshape(8, -1), windows).reshape(sums.shape)
    assert torch.equal(sums, expected.double())


def test_calibration_refuses_what_it_cannot_use() -> None:
    network = _network()
    with pytest.raises(DataError, match="no calibration batches"):
        observe(network, [])
    with pytest.raises(DataError, match=r"calibration batch 1: value .* is not finite"):
        observe(network, [*_batches(1), (torch.full(IMAGE, float("nan")),)])
    ranges = observe(network, _batches(1))
    ranges.pop(network.kernels[0].output)
    with pytest.raises(DataError, match="has no range"):
        quantise(network, ranges)


def test_ranges_join_over_batches() -> None:
    network = _network()
    one, two = _batches(2)
    both = observe(network, [one, two])
    for name, found in both.items():
        assert found == observe(network, [one])[name].joined(observe(network, [two])[name])


def test_a_grid_rounds_to_even() -> None:
    rounded = Grid(1.0, 0, -127, 127).quantise(torch.tensor([0.5, 1.5, 2.5]))
    assert torch.equal(rounded, torch.tensor([0.0, 2.0, 2.0], dtype=torch.float64))
