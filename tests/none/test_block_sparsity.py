"""Block column sparsity: what is kept, masks that training keeps, networks of sparse kernels, and what a pattern is worth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from targets import Cnn, Vit
from torch.nn import functional as F

import billhook.api as bh
from billhook.costmodel.partition import partition
from billhook.costmodel.work import kernel_flops
from billhook.ir.block_sparse import BlockPattern, block_conv2d, block_mask, kept_columns
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.reference import run_network
from billhook.ir.target import Target
from billhook.passes.block_sparsity import (
    ROWS,
    block_layers,
    block_worth,
    kept_energy,
    mask_parameters,
    release,
    sparse_network,
    sparse_workload,
)
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference

TARGET = Target("llvm", "znver4", 16, 8, 32, 1)


def network_of(model: torch.nn.Module) -> Network:
    program = bh.trace(model, torch.zeros(1, 3, 32, 32))
    return partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), TARGET).network


@given(outputs=st.integers(1, 40), inputs=st.integers(1, 9), taps=st.sampled_from([1, 9]), rows=st.sampled_from([4, 16]), data=st.data())
def test_every_block_keeps_its_heaviest_columns(outputs: int, inputs: int, taps: int, rows: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, inputs * taps))
    weight = np.random.default_rng(outputs).standard_normal((outputs, inputs, taps))
    columns = kept_columns(weight, BlockPattern(rows, kept))
    assert columns.shape == (-(-outputs // rows), kept)
    assert (np.diff(columns) > 0).all()
    for block, listed in enumerate(columns):
        norms = np.square(weight.reshape(outputs, -1)[block * rows : (block + 1) * rows]).sum(0)
        assert norms[listed].min() >= np.delete(norms, listed).max(initial=0)


def test_a_kernel_pattern_keeps_as_many_taps_of_every_channel() -> None:
    weight = np.random.default_rng(0).standard_normal((20, 5, 3, 3))
    columns = kept_columns(weight, BlockPattern(16, 20, 4))
    assert columns.shape == (2, 20)
    assert (np.bincount(columns[1] // 9, minlength=5) == 4).all()
    assert len({tuple(columns[0][i : i + 4] % 9) for i in range(0, 20, 4)}) > 1, "each channel has its own pattern"


def test_the_operator_is_a_convolution_with_the_masked_weight() -> None:
    torch.manual_seed(0)
    x, weight, pattern = torch.randn(2, 6, 7, 7), torch.randn(20, 6, 3, 3), BlockPattern(8, 11)
    mask = block_mask(weight, pattern)
    assert mask.reshape(20, -1).sum(1).eq(11).all()
    assert mask[:8].eq(mask[0]).all()
    made = block_conv2d(x, weight, None, [2, 2], [1, 1], [1, 1], 1, 8, 11, 0)
    assert torch.equal(made, F.conv2d(x, weight * mask, stride=2, padding=1))
    masked = weight * mask
    assert torch.equal(masked, masked * block_mask(masked, pattern)), "a masked weight keeps all that it has"


@pytest.mark.parametrize("make", [Cnn, Vit])
def test_a_masked_model_is_computed_by_sparse_kernels(make: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    layers = block_layers(network_of(model), model)
    assert len(layers) >= 2
    chosen = {layer.parameter: layer.patterns[0] for layer in layers}
    mask_parameters(model, chosen)
    release(model, chosen)
    dense = network_of(model)
    sparse = sparse_network(dense, chosen)
    assert sum("billhook.block" in k.workload.anchor.op for k in sparse.kernels) == len(layers)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        (found,) = run_network(sparse, (x,))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert sum(map(kernel_flops, (k.workload for k in sparse.kernels))) < 0.8 * sum(map(kernel_flops, (k.workload for k in dense.kernels)))


def test_layers_with_few_columns_and_grouped_ones_stay_dense() -> None:
    model = Cnn().eval()
    names = [layer.parameter for layer in block_layers(network_of(model), model)]
    assert "depthwise.weight" not in names
    assert "head.weight" not in names
    assert "stem.0.weight" not in names
    assert {"inner.weight", "outer.weight"} <= set(names)
    patterned = block_layers(network_of(model), model, taps=True)
    assert {p.taps for layer in patterned for p in layer.patterns} == {4, 2, 1}
    assert "point.weight" not in [layer.parameter for layer in patterned], "a 1x1 filter has no kernel pattern"


@pytest.mark.parametrize("form", ["module", "graph"])
def test_training_keeps_the_zeros(form: str) -> None:
    """In a graph as well, which reads weights without calling their modules."""
    torch.manual_seed(0)
    model = Cnn() if form == "module" else cut_graph(bh.trace(Cnn().eval(), torch.zeros(2, 3, 32, 32)), Plan({}))
    parameter = model.get_parameter("outer.weight")
    pattern = BlockPattern(ROWS, 40)
    mask = block_mask(parameter, pattern)
    before = parameter.detach().clone()
    mask_parameters(model, {"outer.weight": pattern})
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimiser.step()
    release(model, {"outer.weight": pattern})
    assert model.get_parameter("outer.weight") is parameter, "optimisers and other readers keep their tensor"
    after = parameter.detach()
    assert after[mask == 0].eq(0).all()
    assert not torch.equal(after[mask == 1], before[mask == 1])
    assert parameter.requires_grad


def test_worth_grows_with_what_is_kept_and_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = Cnn().eval()
    layers = block_layers(network_of(model), model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    data = [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,)))]
    for loader in (None, data):
        worth = block_worth(layers, model, loader, F.cross_entropy)
        assert all((np.diff(w) >= 0).all() and len(w) == 4 for w in worth.values())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_kept_energy_is_the_share_of_the_squares() -> None:
    weight = torch.ones(16, 10)
    assert kept_energy(weight, BlockPattern(16, 3)) == pytest.approx(0.3)


def test_a_sparse_workload_counts_what_it_multiplies() -> None:
    model = Cnn().eval()
    kernel = next(k for k in network_of(model).kernels if "outer.weight" in k.inputs)
    dense = kernel.workload
    sparse = sparse_workload(dense, BlockPattern(16, 108))
    columns = 48 * 9
    extra = sum(1 for _ in dense.calls[1:]) * dense.output.elements
    assert kernel_flops(dense) - extra == pytest.approx((kernel_flops(sparse) - extra) * columns / 108)
