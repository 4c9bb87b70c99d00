"""Whole networks in int8, from the first candidate of every kernel: they give what integer arithmetic gives."""

import pytest
import torch
from torch import nn

from billhook.codegen.backend import backend_of
from billhook.codegen.build import build
from billhook.codegen.host import cpu_flags, host_target
from billhook.compiler.precision import in_int8
from billhook.costmodel.partition import partition
from billhook.ir.capture import capture
from billhook.ir.grids import QUINT8
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.oracle import relative_error
from billhook.passes.quantise_reference import run_quantised

needs_vnni = pytest.mark.skipif("avx512_vnni" not in cpu_flags(), reason="this processor lacks avx512_vnni")


class Mobile(nn.Module):
    """Expansion, depthwise with stride, squeeze and excitation, projection; then two branches that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 48, 1)
        self.depthwise = nn.Conv2d(48, 48, 5, 2, 2, groups=48)
        self.squeeze, self.excite = nn.Conv2d(48, 8, 1), nn.Conv2d(8, 48, 1)
        self.left, self.right, self.last = nn.Conv2d(48, 24, 1), nn.Conv2d(48, 20, 3, padding=1), nn.Linear(44, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.stem(x))
        x = self.depthwise(nn.functional.hardswish(self.expand(x))).relu()
        scale = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x * scale
        x = torch.cat([self.left(x), nn.functional.avg_pool2d(self.right(x), 3, 1, 1)], 1)
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Transformer(nn.Module):
    """Patches, one encoder block with its norms first, mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.proj, self.up, self.down = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(x)).reshape(x.shape[0], -1, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(x.shape))
        x = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


@needs_vnni
@pytest.mark.parametrize(("network", "exact"), [(Mobile, 8), (Transformer, 5)])
def test_a_network_gives_what_integer_arithmetic_gives(network: type[nn.Module], exact: int) -> None:
    image, target = torch.randn(1, 3, 16, 16), host_target()
    program, _ = run_passes(capture(network().eval(), (image,), {}), ANALYSIS)
    graph = cut_graph(program, Plan({}))
    real = partition(normalise_for_inference(graph, program.example), target)
    backend = backend_of(target)
    found = in_int8(real, backend, tuple((torch.randn(image.shape),) for _ in range(4)))
    assert len(found.quantisation.kernels) >= exact
    kernels = found.partition.network.kernels
    read_by_norms = {k.inputs[0] for k in kernels if "layer_norm" in k.workload.anchor.op}
    assert not any(k.workload.output.dtype == QUINT8 for k in kernels if k.output in read_by_norms)  # the residual stream stays real
    artifact = build(found.partition.network, {k.workload: backend.candidates(k.workload, target)[0] for k in kernels}, target)
    expected = [t.float() for t in run_quantised(real.network, found.quantisation, (image,))]
    assert relative_error(list(artifact.run(image)), expected) < 2e-3  # a tie may break differently
    assert 1e-4 < relative_error(expected, [graph(image)]) < 0.2
