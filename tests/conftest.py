"""What all tests share: one thread each, a marker by folder, repeatable random tests."""

import os
import random
from pathlib import Path

# Set before torch and TVM load: two xdist workers share two cores, and results must not depend on the thread count.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import pytest
import torch
from hypothesis import settings

TESTS = Path(__file__).parent
NEEDS = ("none", "tvm", "slow", "gpu", "device")

settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, derandomize=False, print_blob=True, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the folder that it lies in: what a test needs is where it is."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in NEEDS:
            item.add_marker(getattr(pytest.mark, folder))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    _seed()  # again: the test must not depend on which fixtures were made just before it


def _seed() -> None:
    """A test fails always or never: an unlucky draw of weights (a dead ReLU) is not found on another's machine first."""
    random.seed(0)
    np.random.seed(0)  # for whoever uses the old global generator
    torch.manual_seed(0)
