"""torchvision: every model that is not quantized. Only input sizes are chosen here; no model is changed."""

import contextlib
import functools
import importlib
from collections.abc import Generator
from typing import Any
from unittest.mock import patch

import torch

from .case import Case, Example, images
from .detector import StaticDetector
from .support import models

# The smallest sizes that these accept; all others take 64 x 64 (vision transformers are built for the size given here).
SIDES = {"inception_v3": 96, "maxvit_t": 224, "alexnet": 96, "ssd300_vgg16": 300}
VIDEO = {"s3d": (3, 16, 224, 224), "mvit_v1_b": (3, 8, 112, 112), "mvit_v2_s": (3, 8, 112, 112)}


def cases() -> list[Case]:
    """All cases, by name."""
    names = sorted(n for n in models.list_models() if not n.startswith("quantized_"))
    return [Case("torchvision", name, functools.partial(_build, name)) for name in names]


def _build(name: str) -> tuple[torch.nn.Module, Example]:
    home = models.get_model_builder(name).__module__
    if "detection" in home:
        side = SIDES.get(name, 128)
        return StaticDetector(_plain(name, weights_backbone=None)), images(3, side, side)
    if "segmentation" in home:
        return _plain(name, weights_backbone=None), images(3, 64, 64)
    if "optical_flow" in home:
        return _plain(name), ((torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128)), {"num_flow_updates": 2})
    if "video" in home:
        shape = VIDEO.get(name, (3, 8, 64, 64))
        with _clips(*shape[1:]):
            return _plain(name), images(*shape)
    if name.startswith("vit_"):
        side = 2 * int(name.rsplit("_", 1)[1])
        return _plain(name, image_size=side), images(3, side, side)
    side = SIDES.get(name, 64)
    return _plain(name), images(3, side, side)


@contextlib.contextmanager
def _clips(frames: int, *side: int) -> Generator[None]:
    """Transformers for video are built for one size of clip, which their public constructors do not let one choose."""
    home = importlib.import_module("torchvision.models.video.mvit")
    made = vars(home)["_mvit"]

    def smaller(**options: Any) -> Any:
        return made(**{**options, "temporal_size": frames, "spatial_size": side})

    with patch.object(home, "_mvit", smaller):
        yield


def _plain(name: str, **options: Any) -> torch.nn.Module:
    if name in {"googlenet", "inception_v3"}:
        options["init_weights"] = False
    return models.get_model(name, weights=None, **options).eval()
