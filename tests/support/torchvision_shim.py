"""torchvision.models for tests, also where torchvision's compiled operators do not load with the installed torch.

Importing torchvision registers fake kernels for operators that its compiled library declares; without that library the
import fails. Only detection models call these operators, so declaring their schemas is enough for everything else.
"""

from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _declare() -> Any:
    library: Any = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


try:
    from torchvision import models
except RuntimeError:
    LIBRARY = _declare()  # the declarations live as long as this object
    from torchvision import models

__all__ = ["models"]
