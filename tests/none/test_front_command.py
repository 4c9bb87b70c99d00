"""`billhook front` without measuring: the printed front, its drawing, and its one-line errors."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from torch import nn
from user_module import install

from billhook.cli import main
from billhook.compiler.early import early_front
from billhook.ir.errors import BillhookError

Capture = pytest.CaptureFixture[str]
MODULE = "billhook_test_front_code"
SOURCE = """
import torch

def build():
    torch.default_generator.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))

def loader():
    return [(torch.randn(4, 8), torch.zeros(4, dtype=torch.int64))]
"""


@pytest.fixture(autouse=True)
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, MODULE, SOURCE)


def test_the_front_is_printed_and_drawn(tmp_path: Path, capsys: Capture) -> None:
    drawing = tmp_path / "front.svg"
    assert main(["front", f"{MODULE}:build", "-e", "1x8", "--static", "--points", "6", "--graph", str(drawing)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [tuple(float(cell.rstrip("%")) for cell in line.split()) for line in lines[1:] if line.endswith("%")]
    assert 2 <= len(rows) <= 6
    assert rows == sorted(rows)
    assert rows[-1] == (100.0, 100.0)  # the dense network keeps everything
    assert any("nothing was measured" in line for line in lines)
    assert not any(" ms" in line for line in lines)  # a static cost is never called a time
    svg = ET.parse(drawing).getroot()
    assert svg.tag.endswith("svg")
    assert len(svg.findall(".//{*}circle")) >= len(rows)


def test_data_and_criterion_are_taken(capsys: Capture) -> None:
    assert main(["front", f"{MODULE}:build", "-e", "1x8", "--static", "--data", f"{MODULE}:loader", "--criterion", "fisher"]) == 0
    assert "plans by fisher" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--criterion", "tailor"], "did you mean taylor"),
        (["--criterion", "taylor"], "criterion taylor needs data"),
        (["--retain", "120%"], "a share lies between 0 and 100%"),
        (["--retain", "80%", "--preset", "uniform"], "takes a latency, not a floor"),
        (["--preset", "unifrom"], "did you mean uniform"),
        (["--preset", "nvit"], "preset nvit scores by fisher, which needs data"),
        (["--graph", "front.png"], ".svg or .html"),
    ],
)
def test_errors_are_one_line(options: list[str], said: str, capsys: Capture) -> None:
    assert main(["front", f"{MODULE}:build", "-e", "1x8", "--static", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_least_latency_that_retains_a_share(capsys: Capture) -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    found = early_front(model, torch.randn(1, 8), retain=0.8)
    assert found.least is not None
    on_front = min(p.cost for p in found.points if p.retained >= 0.8)
    assert found.least.bound <= found.least.amount <= on_front * (1 + 1e-9)
    assert found.least.share >= 0.8 * (1 - 1e-8)
    assert main(["front", f"{MODULE}:build", "-e", "1x8", "--static", "--retain", "80%"]) == 0
    assert "least that retains 8" in capsys.readouterr().out


def test_a_preset_s_front_lies_below_ours() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    ours, uniform = early_front(model, torch.randn(1, 8)), early_front(model, torch.randn(1, 8), preset="uniform", goals=7)
    assert 2 <= len(uniform.points) <= 7
    assert uniform.criterion == "l2"
    assert [p.cost for p in uniform.points] == sorted(p.cost for p in uniform.points)
    for point in uniform.points:
        best = max(p.retained for p in ours.points if p.cost <= point.cost * (1 + 1e-9))
        assert point.retained <= best + ours.gap
    halves = [sum(p.sizes.values()) for p in uniform.points if abs(p.sizes["0.out"] - p.sizes["2.out"]) <= 8]
    assert len(halves) == len(uniform.points)  # a uniform cut takes the same share of both layers


def test_every_point_is_within_its_certificate_and_ascends() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    found = early_front(model, torch.randn(1, 8))
    costs, kept = [p.cost for p in found.points], [p.retained for p in found.points]
    assert costs == sorted(costs)
    assert kept == sorted(kept)
    assert found.unit == "static"
    assert 0 <= found.gap < 0.2  # two axes in steps of 8: the relaxation is coarse
    assert len(found.thinned(3)) <= 3
    with pytest.raises(BillhookError, match="needs data"):
        early_front(model, torch.randn(1, 8), criterion="hap")
