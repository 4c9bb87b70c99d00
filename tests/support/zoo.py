"""torchvision's architectures at a size for tests: the same constructs, fewer of them."""

import importlib
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torchvision_shim import models

Made = tuple[nn.Module, torch.Tensor]


def _image(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side)


def _resnet() -> Made:
    return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=4, width_per_group=8, groups=2), _image(32)


def _vgg() -> Made:
    """Its two wide hidden layers would be 100 million parameters at any input: narrow ones of the same form stand in."""
    with torch.device("meta"):
        model = models.VGG(nn.Sequential(), num_classes=4)
    model.features = models.vgg.make_layers([8, "M", 16, "M", 16, 24, "M"], batch_norm=True)
    model.classifier = nn.Sequential(nn.Linear(24 * 49, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, 4))
    return model, _image(16)


def _mobilenet_v2() -> Made:
    setting = [[1, 8, 1, 1], [4, 16, 2, 2], [4, 24, 1, 2]]
    return models.MobileNetV2(num_classes=4, width_mult=0.5, inverted_residual_setting=setting), _image(32)


def _mobilenet_v3() -> Made:
    config, last = importlib.import_module("torchvision.models.mobilenetv3")._mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.25)
    return models.MobileNetV3(config[:6], last, num_classes=4), _image(32)


def _densenet() -> Made:
    return models.DenseNet(8, cast(Any, (2, 3, 2)), 16, 2, num_classes=4), _image(32)


def _googlenet() -> Made:
    return models.GoogLeNet(num_classes=4, aux_logits=False, init_weights=False), _image(32)


def _shufflenet() -> Made:
    return models.ShuffleNetV2([2, 2, 2], [8, 16, 24, 32, 64], num_classes=4), _image(32)


def _convnext() -> Made:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(8, 16, 1), block(16, 24, 2), block(24, None, 1)], num_classes=4), _image(32)


def _vit() -> Made:
    return models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=4), _image(32)


def _swin() -> Made:
    return models.SwinTransformer([4, 4], 12, [2, 2], [2, 3], [4, 4], num_classes=4), _image(32)


def _swin_v2() -> Made:
    block, merge = models.swin_transformer.SwinTransformerBlockV2, models.swin_transformer.PatchMergingV2
    return models.SwinTransformer([4, 4], 12, [2, 2], [2, 3], [4, 4], num_classes=4, block=block, downsample_layer=merge), _image(32)


SMALL: dict[str, Callable[[], Made]] = {
    "resnet": _resnet,
    "vgg": _vgg,
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3": _mobilenet_v3,
    "densenet": _densenet,
    "googlenet": _googlenet,
    "shufflenet_v2": _shufflenet,
    "convnext": _convnext,
    "vit": _vit,
    "swin": _swin,
    "swin_v2": _swin_v2,
}
