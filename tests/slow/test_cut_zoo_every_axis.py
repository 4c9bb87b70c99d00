"""The oracle on every axis of every architecture, alone, at half and at nothing; and on many random networks."""

from typing import Any, cast

import pytest
import torch
from axis_oracle import EQUAL, MOVED, bench
from hypothesis import HealthCheck, given, settings
from random_networks import RandomNetwork, Step, recipes
from zoo import SMALL


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_axis(name: str) -> None:
    torch.default_generator.manual_seed(0)
    bench(*SMALL[name]()).check_every_axis()


@pytest.mark.timeout(3600)
@settings(max_examples=300, suppress_health_check=list(cast(Any, HealthCheck)))
@given(recipes(longest=14))
def test_many_random_networks(recipe: list[Step]) -> None:
    found = bench(RandomNetwork(recipe), torch.randn(2, 3, 4, 4))
    if found.prunable():
        error, moved = found.errors(found.half(seed=len(recipe)))
        assert error < EQUAL
        assert moved > MOVED
