"""The oracle on torchvision's architectures, thin or shallow where their constructors allow it, at small inputs.

All axes at once, and the first, the last and one more axis alone; tests/slow runs every axis of every network.
"""

from collections.abc import Callable

import pytest
import torch
from axis_oracle import bench
from torch import nn
from zoo import SMALL


@pytest.mark.parametrize("name", sorted(SMALL))
def test_cut_equals_mask(name: str) -> None:
    build: Callable[[], tuple[nn.Module, torch.Tensor]] = SMALL[name]
    torch.default_generator.manual_seed(0)
    model, x = build()
    found = bench(model, x)
    names = found.prunable()
    found.check(found.half())
    for axis in {names[0], names[len(names) // 2], names[-1]}:
        found.check(found.half([axis]))
