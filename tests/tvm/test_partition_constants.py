"""Constants and values without dimensions in built networks: what a removed branch leaves, and scalars that kernels hand on."""

import torch
from torch import nn

from billhook.codegen import lower
from billhook.codegen.build import build
from billhook.codegen.host import host_target
from billhook.costmodel.partition import partition
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import make_plan
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference


class Inception(nn.Module):
    """Two branches side by side, of which the second has a neck that can go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.neck = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.right, self.head = nn.Conv2d(8, 12, 1), nn.Conv2d(20, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.head(torch.cat([self.left(x), self.right(self.neck(x).relu())], 1))


def test_constant_branch_is_copied_by_a_template() -> None:
    x = torch.randn(2, 3, 10, 10)
    program, _ = run_passes(capture(Inception(), (x,)), ANALYSIS)
    graph = cut_graph(program, make_plan(program, {"neck.out": []}))
    target = host_target()
    network = partition(normalise_for_inference(graph, ((x,), {})), target).network
    choices = {k.workload: lower.candidates(k.workload, target)[0] for k in network.kernels}
    assert "generic" not in {choice.template for choice in choices.values()}
    torch.testing.assert_close(build(network, choices, target).run(x)[0], graph(x).detach())


def test_a_value_without_dimensions_is_passed_from_kernel_to_kernel() -> None:
    class Scaled(nn.Module):
        """A temperature that depends on the input, and one that is a parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x * self.scale.exp() / x.abs().sum().sqrt(), -1)

    x = torch.randn(2, 8)
    graph = normalise_for_inference(capture(Scaled(), (x,)).graph, ((x,), {}))
    target = host_target()
    network = partition(graph, target).network
    choices = {k.workload: lower.candidates(k.workload, target)[0] for k in network.kernels}
    torch.testing.assert_close(build(network, choices, target).run(x)[0], Scaled()(x).detach())


def test_constants_keep_their_element_type() -> None:
    class Shifted(nn.Module):
        """Row numbers are looked up with an offset: both are 64-bit integers."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(6, 8)
            self.register_buffer("offset", torch.tensor([1, 2, 0]))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.table(rows + self.get_buffer("offset"))

    rows, model = torch.tensor([[0, 1, 2], [2, 3, 4]]), Shifted()
    target = host_target()
    network = partition(normalise_for_inference(capture(model, (rows,)).graph, ((rows,), {})), target).network
    choices = {k.workload: lower.candidates(k.workload, target)[0] for k in network.kernels}
    torch.testing.assert_close(build(network, choices, target).run(rows)[0], model(rows).detach())
