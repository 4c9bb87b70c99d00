"""timm: the smallest model of each module family, at the smallest input that it takes."""

import functools
from pathlib import Path
from typing import Any, cast

import torch

from .case import Case, Example, images
from .support import models

import timm  # isort: skip  # pyright: ignore[reportMissingImports]

del models  # imported only because torchvision must load before timm

FAMILIES = Path(__file__).with_name("timm_families.txt")  # module, model: written once, so that records stay comparable
LARGEST = 3, 384, 384  # attention over more in float64, all of it kept, needs more memory than there is


def cases() -> list[Case]:
    """All cases, by family."""
    rows = [line.split() for line in FAMILIES.read_text().splitlines() if line.strip()]
    return [Case("timm", name, functools.partial(_build, name)) for _, name in rows]


def _build(name: str) -> tuple[torch.nn.Module, Example]:
    model = cast(Any, timm.create_model(name)).eval()
    size = tuple(model.default_cfg.get("min_input_size") or model.default_cfg["input_size"])
    fixed = bool(model.default_cfg.get("fixed_input_size"))
    side = model.default_cfg["input_size"] if fixed else tuple(map(min, max(size, (3, 64, 64)), LARGEST))
    for shape in (side, (3, 96, 96), (3, 128, 128), (3, 160, 160), model.default_cfg["input_size"]):
        try:
            with torch.no_grad():
                model(torch.randn(2, *shape))
        except (RuntimeError, ValueError, AssertionError, IndexError):
            continue
        return model, images(*shape)
    raise ValueError(f"{name} runs at none of the sizes tried")
