"""The static part of torchvision's detectors: backbone, neck and heads, without the post-processing that depends on data."""

from typing import Any

import torch


class StaticDetector(torch.nn.Module):
    """Images to raw predictions. Detectors with regions pool a fixed set of boxes of each image."""

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.backbone: Any = detector.backbone
        self.head: Any = getattr(detector, "head", None)
        self.rpn_head: Any = getattr(getattr(detector, "rpn", None), "head", None)
        self.regions: Any = getattr(detector, "roi_heads", None)
        self.register_buffer("boxes", torch.tensor([[4.0, 4.0, 90.0, 60.0], [20.0, 10.0, 120.0, 120.0]]))

    def forward(self, images: torch.Tensor) -> Any:
        features = self.backbone(images)
        features = {"0": features} if isinstance(features, torch.Tensor) else features
        if self.head is not None:
            return self.head(list(features.values()))
        outputs = [self.rpn_head(list(features.values()))]
        sizes = [tuple(images.shape[-2:])] * images.shape[0]
        boxes = [self.boxes.to(images.dtype)] * images.shape[0]
        for pool, head, predictor in (
            ("box_roi_pool", "box_head", "box_predictor"),
            ("mask_roi_pool", "mask_head", "mask_predictor"),
            ("keypoint_roi_pool", "keypoint_head", "keypoint_predictor"),
        ):
            if getattr(self.regions, pool, None) is not None:
                pooled = getattr(self.regions, pool)(features, boxes, sizes)
                outputs.append(getattr(self.regions, predictor)(getattr(self.regions, head)(pooled)))
        return outputs
