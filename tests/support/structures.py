"""Small networks with one construct each, and the axes that must be prunable in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

Example = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Structure:
    """build: a module and an example, made anew. prunable: "name:size" of every axis that must be prunable, and no other."""

    build: Callable[[], tuple[torch.nn.Module, Example]]
    prunable: frozenset[str]


STRUCTURES: dict[str, Structure] = {}


def structure(*inputs: Any, prunable: str, **options: Any) -> Callable[[Callable[..., torch.nn.Module]], Callable[..., torch.nn.Module]]:
    """Register a module class under its name. inputs: shapes (standard normal numbers) or functions that make a value; a
    dict becomes keyword arguments. prunable: the expected axes, separated by spaces."""

    def register(factory: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
        def build() -> tuple[torch.nn.Module, Example]:
            torch.default_generator.manual_seed(0)
            named = {k: _value(v) for given in inputs if isinstance(given, dict) for k, v in cast(dict[str, Any], given).items()}
            return factory(**options).eval(), (tuple(_value(g) for g in inputs if not isinstance(g, dict)), named)

        name = factory.__name__ + "".join(f"_{v}" for v in options.values())
        assert name not in STRUCTURES, name
        STRUCTURES[name] = Structure(build, frozenset(prunable.split()))
        return factory

    return register


def _value(given: Any) -> Any:
    return given() if callable(given) else torch.randn(*given)


from structures_attention import *  # noqa: F403
from structures_conv import *  # noqa: F403
from structures_experts import *  # noqa: F403
from structures_flow import *  # noqa: F403
from structures_sequence import *  # noqa: F403
