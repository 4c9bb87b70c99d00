"""Networks that suites name: the demo's, and torchvision's with random weights at a resolution of one's choice."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from billhook.demo import net

DEMO = "demo"
DATABASE = Path("out") / "networks" / "kernels.db"  # what one suite measures of a network's kernels, the others need not
DEFAULT = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")


@dataclass(frozen=True, slots=True)
class Named:
    """name: "demo" or a network of torchvision's; size: pixels of an image's side (the demo's pictures have their own size)."""

    name: str
    size: int = 224

    def __str__(self) -> str:
        return self.name if self.name == DEMO else f"{self.name}@{self.size}"

    def load(self) -> tuple[torch.nn.Module, torch.Tensor]:
        """The network in evaluation mode, its weights redrawn so that every output matters, and one image."""
        _tests_support_on_path()
        redrawn: Any = importlib.import_module("redrawn")
        with redrawn.cheap_construction():
            model, shape = self._dense()
        redrawn.redraw(model)
        return model.eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def _dense(self) -> tuple[torch.nn.Module, tuple[int, ...]]:
        if self.name == DEMO:
            return net.build(), tuple(net.example().shape)
        return getattr(_torchvision(), self.name)(weights=None), (1, 3, self.size, self.size)


def unknown(names: list[str]) -> list[str]:
    """Those that are neither the demo nor a network of torchvision's."""
    return [name for name in names if name != DEMO and not callable(getattr(_torchvision(), name, None))]


def _torchvision() -> Any:
    _tests_support_on_path()
    return importlib.import_module("torchvision_shim").models  # also where torchvision's compiled operators do not load


def _tests_support_on_path() -> None:
    support = str(Path(__file__).parents[1] / "tests" / "support")
    if support not in sys.path:
        sys.path.insert(0, support)
