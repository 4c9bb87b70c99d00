"""One case of the suite: how to build a model and an example input for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Example = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Case:
    """A model of one set. `build` returns the module and its example (args, kwargs); nothing is built before it is called."""

    set: str
    name: str
    build: Callable[[], tuple[torch.nn.Module, Example]] = field(repr=False)


def images(*shape: int) -> Example:
    """One input of standard normal numbers, the batch of two in front."""
    return (torch.randn(2, *shape),), {}
