"""On a real GPU: programs equal torch, through plain launches and through the captured graph. Needs a CUDA device, nvcc and TVM."""

from collections.abc import Iterator

import pytest
import torch
from cuda_networks import SM90, attention, conv, layer_norm, linear, max_pool, one_kernel, residual_network

from billhook.codegen.cuda.build import build
from billhook.codegen.cuda.driver import Driver
from billhook.codegen.cuda.session import Session
from billhook.ir.network import Network
from billhook.ir.reference import run_network

NETWORKS: dict[str, Network] = {
    "conv": one_kernel(conv(tail=True)),
    "batch": one_kernel(conv(batch=64, stride=2)),
    "depthwise": one_kernel(conv(channels=12, out=12, groups=12)),
    "vector": one_kernel(linear(1)),
    "matrix": one_kernel(linear(197)),
    "attention": one_kernel(attention()),
    "layer norm": one_kernel(layer_norm()),
    "pool": one_kernel(max_pool()),
    "residual network": residual_network(),
}


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    opened = Driver()
    yield opened
    opened.close()


@pytest.mark.parametrize("name", NETWORKS)
def test_programs_equal_torch(name: str, driver: Driver) -> None:
    network = NETWORKS[name]
    with Session(build(network, SM90).program, driver) as session:
        for _ in range(3):  # fresh inputs over poisoned memory
            inputs = tuple(torch.randn(t.shape) for _, t in network.inputs)
            for found, expected in zip(session.run(*inputs), run_network(network, inputs), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert all(seconds > 0 for seconds in session.time(3) + session.time(3, graph=False))
