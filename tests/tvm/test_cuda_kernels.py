"""Generated CUDA kernels compute what torch computes: their source runs on the host, thread by thread (tests/support/cuda_on_host.h)."""

from pathlib import Path

import pytest
import torch
from cuda_networks import SM90, attention, conv, layer_norm, linear, max_pool, one_kernel, residual_network
from cuda_on_host import HostGpu

from billhook.codegen.cuda.build import generate
from billhook.codegen.gpu.tile import TILES
from billhook.ir.network import Network
from billhook.ir.reference import run_network
from billhook.ir.workload import Workload

CASES = {
    "conv with residual": conv(tail=True),
    "strided conv of a batch": conv(batch=3, stride=2),
    "pointwise conv, odd widths": conv(channels=13, out=7, window=1),
    "wide window": conv(channels=3, window=7, stride=2),
    "conv to a single channel": conv(out=1),
    "conv to a single pixel": conv(window=3, stride=2, map_size=(1, 1)),
    "depthwise conv": conv(channels=12, out=12, groups=12),
    "vector times matrix": linear(1),
    "matrix product": linear(50),
    "attention": attention(),
    "layer norm": layer_norm(),
    "max pool": max_pool(),
}


def check(network: Network, folder: Path, rank: int = 0) -> None:
    program, source = generate(network, SM90, {k.workload: rank for k in network.kernels})
    random = torch.Generator().manual_seed(2)
    inputs = tuple(torch.randn(t.shape, generator=random) for _, t in network.inputs)
    for found, expected in zip(HostGpu(program, source, folder).run(*inputs), run_network(network, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_torch(name: str, tmp_path: Path) -> None:
    check(one_kernel(CASES[name]), tmp_path)


@pytest.mark.parametrize("rank", [len(TILES) // 2, len(TILES) - 1])
def test_other_tiles_compute_the_same(rank: int, tmp_path: Path) -> None:
    check(one_kernel(conv(batch=2, tail=True)), tmp_path, rank)


def test_a_network_shares_kernels_and_reuses_memory(tmp_path: Path) -> None:
    network = residual_network()
    check(network, tmp_path)
    program, _ = generate(network, SM90)
    assert program.launches[0].symbol == program.launches[1].symbol, "equal kernels are compiled once"
    assert [n.kernel for n in program.launches] == ["conv0", "conv1", "mean", "head"], "a view needs no launch"
    assert program.outputs[2][0] == "x", "an output may be an input"
    largest = 4 * 20 * 9 * 11
    assert program.arena_bytes < 3 * largest


def test_weights_are_packed_at_build_time() -> None:
    program, source = generate(one_kernel(conv()), SM90)
    assert len(program.launches) == 1
    assert source.count('extern "C" __global__') == 2, "one kernel, declared and defined: packing is no kernel"
    assert "w1" not in program.constants, "the unpacked weight is not shipped"


def widths(workload: Workload) -> int:
    program, _ = generate(one_kernel(workload), SM90)
    return sum(n.grid[0] * n.grid[1] * n.grid[2] for n in program.launches)


def test_a_larger_batch_takes_more_blocks() -> None:
    assert widths(conv(batch=8)) > widths(conv(batch=1))
