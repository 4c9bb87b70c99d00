"""The property: on random networks, at random indices, the cut equals the mask. And the check itself catches wrong rules."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from axis_oracle import EQUAL, MOVED, Bench, bench
from hypothesis import HealthCheck, given, settings
from random_networks import OPERATORS, RandomNetwork, Step, recipes

HOUSE = settings(max_examples=12, suppress_health_check=list(cast(Any, HealthCheck)))


def check(found: Bench, seed: int) -> None:
    """All axes at once, one alone, and one that may vanish removed whole."""
    names = found.prunable()
    if not names:
        return
    found_error, moved = found.errors(found.half(seed=seed))
    assert found_error < EQUAL
    assert moved > MOVED
    generator = np.random.default_rng(seed)
    alone = names[int(generator.integers(len(names)))]
    assert found.errors(found.half([alone], seed))[0] < EQUAL
    additive = [name for name in names if found.program.axis(name).additive]
    if additive:
        assert found.errors({additive[int(generator.integers(len(additive)))]: []})[0] < EQUAL


@pytest.mark.parametrize("operator", range(len(OPERATORS)), ids=[o.__name__ for o in OPERATORS])
def test_each_operator_alone(operator: int) -> None:
    found = bench(RandomNetwork([(operator, 0, 1, operator % 4)]), torch.randn(2, 3, 4, 4))
    assert found.prunable()
    found.check_every_axis()


@HOUSE
@given(recipes())
def test_random_networks(recipe: list[Step]) -> None:
    check(bench(RandomNetwork(recipe), torch.randn(2, 3, 4, 4)), len(recipe))
