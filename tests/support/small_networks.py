"""torchvision's architectures at sizes that a test can afford, with weights redrawn so that no error can hide."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import torch
from redrawn import cheap_construction, redraw
from torch import nn
from torchvision_shim import models

from billhook.ir.capture import capture
from billhook.ir.program import Program
from billhook.passes.infer import infer_axes


def _vgg() -> nn.Module:
    features = models.vgg.make_layers([16, "M", 24, "M", 32, 32, "M", 512, "M"], batch_norm=True)
    model = models.VGG(features, num_classes=10)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 10))
    return model


def _convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(16, 32, 2), block(32, None, 1)], num_classes=10)


def _resnet(layers: tuple[int, ...]) -> nn.Module:
    return models.ResNet(models.resnet.BasicBlock, list(layers), num_classes=10)


_MAKERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (partial(_resnet, (1, 2, 1, 1)), 64),
    "vgg": (_vgg, 32),
    "mobilenet_v2": (partial(models.mobilenet_v2, width_mult=0.25, num_classes=10), 64),
    "mobilenet_v3": (partial(models.mobilenet_v3_small, width_mult=0.5, num_classes=10), 64),
    "densenet": (partial(models.DenseNet, growth_rate=8, block_config=cast(Any, (2, 3)), num_init_features=16, num_classes=10), 32),
    "googlenet": (partial(models.GoogLeNet, num_classes=10, aux_logits=False, init_weights=False), 64),
    "shufflenet": (partial(models.ShuffleNetV2, [2, 2, 2], [8, 16, 32, 64, 64], num_classes=10), 32),
    "convnext": (_convnext, 32),
    "vit": (
        partial(
            models.VisionTransformer, image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=10
        ),
        16,
    ),
    "swin": (partial(models.SwinTransformer, [4, 4], 16, [2, 2], [2, 4], [2, 2], num_classes=10), 32),
}
NETWORKS = tuple(_MAKERS)


@cache
def network(name: str) -> nn.Module:
    """A network in evaluation mode. Shared: do not change it."""
    make, _ = _MAKERS[name]
    with cheap_construction():
        model = make().eval()
    redraw(model, seed=len(name))
    return model


def images(name: str, batch: int = 2) -> torch.Tensor:
    """Random images of the size that the network takes."""
    return torch.randn(batch, 3, _MAKERS[name][1], _MAKERS[name][1], generator=torch.Generator().manual_seed(batch))


@cache
def program(name: str) -> Program:
    """The network captured with an example of one image, with inferred axes."""
    return infer_axes(capture(network(name), (images(name, 1),)))
