"""Whole networks compiled for a GPU equal torch, run on the host thread by thread."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from cuda_networks import SM90
from cuda_on_host import HostGpu
from torchvision_shim import models

import billhook.api as bh
from billhook.codegen.cuda.build import generate
from billhook.costmodel.partition import partition
from billhook.ir.plan import Plan
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference

NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet18": models.resnet18,
    "vit": partial(models.VisionTransformer, 32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cut", [False, True])
def test_a_network_equals_torch(name: str, cut: bool, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    model = NETWORKS[name]().eval()
    for parameter in model.parameters():  # torchvision's heads begin as zeros
        torch.nn.init.normal_(parameter, std=0.05, generator=random)
    x = torch.randn(1, 3, 32, 32, generator=random)
    program = bh.trace(model, x)
    if cut:
        pruned = bh.prune(program, {a.name: range(max(1, a.size // 2)) for a in program.axes if a.prunable})
        model, program = pruned.model, pruned.program
    network = partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), SM90).network
    compiled, source = generate(network, SM90)
    found = HostGpu(compiled, source, tmp_path).run(x)[0]
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
