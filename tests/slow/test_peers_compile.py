from pathlib import Path

import pytest
import torch
from torch import nn

from billhook.peers import Contender, Subject, build_peer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def subject(width: int) -> Subject:
    torch.default_generator.manual_seed(0)
    return Subject(nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 1)), (torch.randn(1, 3, 8, 8),))


def test_torch_compile_agrees_with_eager() -> None:
    found = build_peer(subject(8), "torch.compile", threads=1)
    assert isinstance(found, Contender), found
    assert found.error <= 1e-5


def test_a_ninth_network_of_one_class_is_still_compiled() -> None:
    torch._dynamo.utils.counters.clear()  # pyright: ignore[reportPrivateUsage]
    for width in range(1, 11):
        found = build_peer(subject(width), "torch.compile", threads=1)
        assert isinstance(found, Contender), found
    counters = torch._dynamo.utils.counters  # pyright: ignore[reportPrivateUsage]
    assert counters["stats"]["unique_graphs"] == 10
