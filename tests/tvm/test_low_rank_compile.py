"""A compilation that may factor layers: what comes out is built, measured, right, and can be loaded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.compiler.pipeline import Compiler
from billhook.ir.errors import DataError, OptionError


class Wide(nn.Module):
    """Three layers, of which the second has a rank of 4; x: [N, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.thin, self.last = nn.Linear(512, 384), nn.Linear(384, 512), nn.Linear(512, 8)
        with torch.no_grad():
            self.thin.weight.copy_(torch.randn(512, 4) @ torch.randn(4, 384) / 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.thin(F.relu(self.first(x)))))


class Batches:
    """Noise, labelled by what the network says of it."""

    def __init__(self, model: nn.Module) -> None:
        inputs = torch.randn(2, 1024, 512, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.batches = [(x, model(x).argmax(1)) for x in inputs]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self.batches)


def test_a_layer_of_low_rank_becomes_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which layer is factored follows from measured prices and probes; that the plan then loses less is taken for granted here."""
    lost = iter([1.0, 0.0])
    monkeypatch.setattr(Compiler, "_lost", lambda *_: next(lost))
    torch.manual_seed(0)
    model, x = Wide().eval(), torch.randn(16, 512, generator=torch.Generator().manual_seed(1))
    data, database = Batches(model), tmp_path / "m.sqlite"
    result = bh.compile(model, x, latency="60%", low_rank=True, data=data, score_batches=2, database=database, peers=())
    assert result.program.factored == ("thin.weight",)
    assert result.plan.sizes()["thin.rank.out"] < 384
    assert result.build.error < 1e-4
    assert result.oracle_error < 1e-4
    assert any("of lower rank, by weight: thin.weight" in note for note in result.record().notes)
    result.save(tmp_path / "out")
    loaded = bh.load(tmp_path / "out", lambda: Wide().eval())
    assert torch.allclose(loaded(x), result.model(x))


def test_what_does_not_go_together() -> None:
    with pytest.raises(DataError, match="low_rank: layers are factored by what they see; pass data"):
        bh.compile(Wide(), torch.randn(1, 512), low_rank=True)
    with pytest.raises(OptionError, match="not with preset halp"):
        bh.compile(Wide(), torch.randn(1, 512), low_rank=True, preset="halp", criterion="l2")
