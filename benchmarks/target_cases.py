"""Networks for the suites of targets: a small CNN and a ViT, and larger ones, dense and cut to half of every axis."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import billhook.api as bh
from billhook.costmodel.partition import partition
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference

from .networks import DEMO, Named

FORMS = "dense", "pruned"
SIZES = {DEMO: 32, "cnn": 32, "vit": 32}  # pixels of an image's side; others have 64


@dataclass(frozen=True)
class Prepared:
    """A network for a target with its program, its trainable model, one input, and what torch computes from it."""

    network: Network
    program: Program
    model: torch.nn.Module
    inputs: torch.Tensor
    expected: torch.Tensor


def prepare(name: str, form: str, target: Target) -> Prepared:
    """The network `name` ("cnn" and "vit" of the tests, "demo", or one of torchvision's), "dense" or "pruned"."""
    model, x = _load(name)
    program = bh.trace(model, x)
    if form == "pruned":
        cut = bh.prune(program, {axis.name: range(half(axis.size)) for axis in program.axes if axis.prunable})
        model, program = cut.model.eval(), cut.program
    network = partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), target).network
    with torch.no_grad():
        return Prepared(network, program, model, x, model(x))


def half(size: int) -> int:
    """Half of an axis, in steps of 8 where it is wide enough."""
    return max(1, size // 2 // 8 * 8 or size // 2)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


def _load(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if name in ("cnn", "vit"):
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
        small: Any = importlib.import_module("targets")
        return {"cnn": small.Cnn, "vit": small.Vit}[name]().eval(), torch.randn(1, 3, 32, 32)
    return Named(name, SIZES.get(name, 64)).load()
