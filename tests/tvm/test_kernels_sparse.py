"""Sparse kernels equal torch for every candidate, and the allocator chooses patterns layer by layer from their prices."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_workloads import AVX2, ZEN4, WorkloadBuilder, conv, wrong
from targets import Cnn
from torch.nn import functional as F

import billhook.api as bh
from billhook.codegen import lower
from billhook.codegen.backend import target_named
from billhook.codegen.cpu import block_sparse
from billhook.codegen.samples import sample_inputs
from billhook.compiler.block_sparse import Offer, choose, prune_blocks
from billhook.compiler.engine import Engine
from billhook.ir.block_sparse import BlockPattern, kept_columns
from billhook.ir.errors import BudgetError
from billhook.ir.latency import Latency
from billhook.ir.progress import no_progress
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.block_sparsity import BlockLayer, sparse_workload


def linear(rows: int, depth: int, width: int) -> Workload:
    b = WorkloadBuilder(ZEN4)
    b.call("aten.linear.default", b.tensor(rows, depth), b.parameter(width, depth), b.parameter(width))
    return b.finish(rows, width)


CASES = {
    "3x3": (conv((1, 32, 9, 11), 48, 3, epilogue=("relu",)), BlockPattern(16, 70)),
    "3x3-larger-blocks": (conv((1, 32, 9, 11), 80, 3), BlockPattern(32, 31)),
    "3x3-pattern": (conv((1, 24, 8, 8), 32, 3, epilogue=("residual", "relu")), BlockPattern(16, 96, 4)),
    "3x3-stride2-batch": (conv((2, 32, 15, 16), 40, 3, stride=2), BlockPattern(16, 29)),
    "3x3-dilated": (conv((1, 16, 13, 17), 16, 3, padding=2, dilation=2), BlockPattern(16, 10)),
    "3x3-odd-widths": (conv((1, 61, 9, 11), 56, 3, epilogue=("residual",)), BlockPattern(16, 55)),
    "1x1": (conv((1, 64, 14, 14), 80, 1, epilogue=("residual", "relu")), BlockPattern(16, 16)),
    "1x1-batch": (conv((3, 40, 5, 5), 24, 1), BlockPattern(16, 1)),
    "linear": (linear(33, 96, 80), BlockPattern(16, 24)),
    "linear-one-row": (linear(1, 200, 64), BlockPattern(32, 50)),
}


@pytest.mark.parametrize("target", [ZEN4, AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize(("dense", "pattern"), CASES.values(), ids=CASES.keys())
def test_every_candidate_equals_torch(dense: Workload, pattern: BlockPattern, target: Target) -> None:
    workload = sparse_workload(dense, pattern)
    candidates = lower.candidates(workload, target)
    assert candidates
    assert {c.template for c in candidates} == {block_sparse.NAME}
    assert [(c, w) for c in candidates if (w := wrong(workload, c, target))] == []


def test_a_wrong_column_is_seen() -> None:
    workload = sparse_workload(conv((1, 32, 9, 11), 48, 3), BlockPattern(16, 70))
    choice = lower.candidates(workload, ZEN4)[0]
    other = sparse_workload(conv((1, 32, 9, 11), 48, 3), BlockPattern(16, 69))
    assert wrong(workload, choice) is None
    weight = sample_inputs(workload)[1]
    assert not np.array_equal(kept_columns(weight, BlockPattern(16, 70))[:, :69], kept_columns(weight, BlockPattern(16, 69)))
    assert lower.multiplications(other, choice) < lower.multiplications(workload, choice)


@pytest.mark.parametrize("rows", [8, 24])
def test_blocks_that_are_no_whole_vectors_have_no_kernel(rows: int) -> None:
    workload = sparse_workload(conv((1, 32, 9, 11), 48, 3), BlockPattern(rows, 70))
    assert block_sparse.candidates(workload, ZEN4) == ()


def test_widths_that_are_no_whole_vectors_have_no_linear_kernel() -> None:
    assert block_sparse.candidates(sparse_workload(linear(4, 64, 10), BlockPattern(16, 9)), ZEN4) == ()


def seconds(value: float) -> Latency:
    return Latency(value, value, value)


def offer(name: str, prices: tuple[float, ...], worth: tuple[float, ...]) -> Offer:
    patterns = tuple(BlockPattern(16, k) for k in range(len(prices) - 1, 0, -1))
    return Offer(BlockLayer(name, (0,), patterns), tuple(map(seconds, prices)), np.array(worth))


def test_the_allocator_buys_where_a_layer_is_worth_least() -> None:
    offers = (offer("a", (1.0, 2.0, 4.0), (-1.0, -0.5, 0.0)), offer("b", (1.0, 5.0, 4.0), (-0.1, -0.1, 0.0)))
    assert choose(offers, seconds(10.0), 0.7).sizes == {"a": 2, "b": 0}
    assert choose(offers, seconds(10.0), 1.0).sizes == {"a": 2, "b": 2}, "what is slower than dense and worth less is never chosen"
    with pytest.raises(BudgetError):
        choose(offers, seconds(10.0), 0.3)


def test_a_network_gets_sparse_kernels_where_they_pay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = bh.trace(Cnn(32).eval(), torch.randn(1, 3, 32, 32))
    data = [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,)))]
    with Engine(target_named("llvm"), tmp_path / "k.db", no_progress) as engine:
        result = prune_blocks(program, engine, 0.75, F.cross_entropy, data=data)
    assert result.chosen
    assert result.build.error < 1e-5
    assert result.predicted.seconds <= 0.75 * result.dense.seconds
    for name, pattern in result.chosen.items():
        weight = result.model.get_parameter(name)
        rows = weight.detach().reshape(len(weight), -1)[: pattern.rows]
        assert int(rows.ne(0).any(0).sum()) == pattern.kept
