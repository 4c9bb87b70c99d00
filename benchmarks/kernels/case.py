"""What is measured: a torchvision network with random weights, dense or pruned, at one batch size, thread count and precision."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121", "vit_b_16", "swin_t", "convnext_tiny")
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
SIDE = 224
DENSE, PRUNED = "dense", "pruned"  # pruned: by our compiler, to half of our dense latency


@dataclass(frozen=True, slots=True)
class Case:
    """model: its name in torchvision; threads: of one inference; precision: of ours; variant: dense or pruned."""

    model: str
    threads: int
    batch: int = 1
    precision: str = "fp32"
    variant: str = DENSE

    def __str__(self) -> str:
        words = [self.precision if self.precision != "fp32" else "", self.variant if self.variant != DENSE else ""]
        return " ".join([self.model, f"b{self.batch}", f"t{self.threads}", *filter(None, words)])

    def load(self) -> tuple[torch.nn.Module, torch.Tensor]:
        """The network in evaluation mode, its weights redrawn so that every output matters, and an image batch."""
        sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
        models: Any = importlib.import_module("torchvision_shim").models  # also where torchvision's compiled operators do not load
        redrawn: Any = importlib.import_module("redrawn")
        with redrawn.cheap_construction():
            model: torch.nn.Module = getattr(models, self.model)(weights=None)
        redrawn.redraw(model)
        image = torch.randn(self.batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        return model.eval(), image
