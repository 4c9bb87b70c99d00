"""The oracle on every axis of every architecture, alone, at half and at nothing; on a sample of the zoos; on many random networks."""

import importlib
import importlib.util
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


SAMPLE = (
    "torchvision/regnet_y_400mf",
    "torchvision/swin_t",
    "timm/coat_tiny",
    "timm/gmlp_ti16_224",
    "timm/levit_128",
    "transformers/bert",
    "transformers/llama",
    "transformers/mixtral",
)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_the_zoos(name: str) -> None:
    """As `python -m benchmarks.coverage SET --every-axis` checks all of them."""
    home, _, model = name.partition("/")
    for package in ("torchvision", home):
        if importlib.util.find_spec(package) is None:  # not imported: torchvision loads through the suite's shim only
            pytest.skip(f"{package} is not installed")
    every_axis = importlib.import_module("benchmarks.coverage.every_axis")
    cases = importlib.import_module(f"benchmarks.coverage.{home}_zoo").cases()
    row = every_axis.AxesRow(home, model)
    every_axis.check_axes(next(c for c in cases if c.name == model), row, lambda: None, 120.0)
    assert row.checked
    assert not row.wrong


@pytest.mark.timeout(3600)
@settings(max_examples=300, suppress_health_check=list(cast(Any, HealthCheck)))
@given(recipes(longest=14))
def test_many_random_networks(recipe: list[Step]) -> None:
    found = bench(RandomNetwork(recipe), torch.randn(2, 3, 4, 4))
    if found.prunable():
        error, moved = found.errors(found.half(seed=len(recipe)))
        assert error < EQUAL
        assert moved > MOVED
