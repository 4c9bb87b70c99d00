"""Activation memory for tests: of any program, and a small network whose values live for different spans."""

import torch

import billhook as bh
from billhook.costmodel.activation_memory import ActivationMemory, activation_memory
from billhook.costmodel.partition import partition
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.costmodel.widths import WidthModel
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.allocate import Problem
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.saliency import retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem

TARGET = Target()


class Forked(torch.nn.Module):
    """A wide value lives on while a branch is computed, and two widths are concatenated; x: [N, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(1, 32, 3, padding=1)
        self.down = torch.nn.Conv2d(32, 24, 3, stride=2, padding=1)
        self.up = torch.nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.head = torch.nn.Conv2d(48, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.head(torch.cat([x, self.up(self.down(x).relu()).relu()], 1)).mean((2, 3))


def memory_of(traced: Program, candidates: dict[str, tuple[int, ...]]) -> ActivationMemory:
    model = WidthModel(traced, partition(normalise_for_inference(cut_graph(traced, Plan({})), traced.example), TARGET))
    return activation_memory(model, TARGET, candidates, batch=1)


def forked() -> tuple[Problem, dict[str, tuple[int, ...]], ActivationMemory]:
    """An allocation problem by static costs, its candidates, and its memory."""
    torch.default_generator.manual_seed(0)
    model = Forked().eval()
    traced = bh.trace(model, torch.randn(1, 1, 8, 8))
    candidates = dict(candidate_sizes(traced, TARGET))
    (costs,) = static_tables(network_kernels(traced, candidates, TARGET), candidates, Roofline())
    worth = {n: retained(s) for n, s in score_axes("l2", traced, model, None).items()}
    return width_problem(traced, worth, candidates, costs), candidates, memory_of(traced, candidates)
