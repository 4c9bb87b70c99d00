"""What is built and measured: networks, dense and cut to half of every axis, at batch 1 and 64."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

import billhook.api as bh
from billhook.ir.program import Program

BATCHES = 1, 64


@dataclass(frozen=True, slots=True)
class Case:
    """A network in one form ("dense" or "pruned") at one batch size."""

    model: str
    form: str
    batch: int

    def __str__(self) -> str:
        return f"{self.model}-{self.form}-b{self.batch}"


def cases(models: tuple[str, ...]) -> tuple[Case, ...]:
    """All forms and batch sizes of these models."""
    return tuple(Case(m, form, batch) for m in models for form in ("dense", "pruned") for batch in BATCHES)


def build_model(case: Case, load: Callable[[str], torch.nn.Module]) -> tuple[torch.nn.Module, Program]:
    """The network in evaluation mode with fixed random weights, and its program at the case's shapes."""
    random = torch.Generator().manual_seed(0)
    model = load(case.model).eval()
    for parameter in model.parameters():  # heads that begin as zeros would hide errors
        torch.nn.init.normal_(parameter, std=0.03, generator=random)
    program = bh.trace(model, torch.randn(case.batch, 3, 224, 224))
    if case.form == "dense":
        return model, program
    kept = {axis.name: range(half(axis.size)) for axis in program.axes if axis.prunable}
    pruned = bh.prune(program, kept)
    return pruned.model, pruned.program


def half(size: int) -> int:
    """Half of an axis, rounded to a multiple of 16 where it is wide and of 8 elsewhere; at least one index."""
    step = 16 if size >= 64 else 8 if size >= 16 else 1
    return max(step, size // 2 // step * step)
