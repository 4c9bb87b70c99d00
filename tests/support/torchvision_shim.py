"""torchvision.models for tests, also where torchvision's compiled operators do not load with the installed torch.

Importing torchvision registers fake kernels for operators that its compiled library declares; without that library the
import fails. Only detection models call these operators: two are declared here with plain implementations, which is enough
to run and to capture their heads.
"""

import importlib
from typing import Any, cast

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    (
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    ),
)


def _declare() -> Any:
    library: Any = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


def _implement(library: Any) -> None:
    """Bilinear samples averaged over each bin, as torchvision computes them in Python."""
    home: Any = importlib.import_module("torchvision.ops.roi_align")  # the package has a function of the same name

    def roi_align(x: torch.Tensor, rois: torch.Tensor, scale: float, height: int, width: int, ratio: int, aligned: bool) -> torch.Tensor:
        plain = getattr(home._roi_align, "__wrapped__", home._roi_align)
        return plain(x, rois, scale, height, width, ratio, aligned)

    def fake(x: torch.Tensor, rois: torch.Tensor, scale: float, height: int, width: int, ratio: int, aligned: bool) -> torch.Tensor:
        return x.new_empty(rois.shape[0], x.shape[1], height, width)

    library.impl("roi_align", roi_align, "CompositeExplicitAutograd")
    cast(Any, torch.library).register_fake("torchvision::roi_align", fake, lib=library)
    home._has_ops = lambda: True
    home._assert_has_ops = lambda: None


try:
    from torchvision import models
except RuntimeError:
    LIBRARY = _declare()  # the declarations live as long as this object
    from torchvision import models

    _implement(LIBRARY)

__all__ = ["models"]
