"""What the commands do with the library: trace for real, compile, load, verify and demo against stand-ins of the slow parts."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from user_module import install

from billhook import api
from billhook.cli import jobs, main
from billhook.ir.latency import Latency
from billhook.options import Budget, InputSpec

Capture = pytest.CaptureFixture[str]
MODULE = "billhook_test_user_code"
SOURCE = """
import torch

def build():
    torch.default_generator.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4))

def tokens():
    return torch.nn.Sequential(torch.nn.Embedding(2, 8), torch.nn.Linear(8, 4))

def poisoned():
    model = build()
    model[0].weight.data[3, 2] = float("nan")
    return model

def loader():
    return [(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64))]

def score(model):
    return 0.5
"""


@pytest.fixture(autouse=True)
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, MODULE, SOURCE)


def test_trace_shows_axes_and_reasons(capsys: Capture) -> None:
    assert main(["trace", f"{MODULE}:build", "-e", "1x6"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "0.out 12 3 prunable" in out
    assert "frozen: an output of the program" in out
    assert out.endswith("1 of 3 axes can be cut; they reach 97.1% of 136 parameters")


def test_trace_says_what_freezes(capsys: Capture) -> None:
    assert main(["trace", f"{MODULE}:build", "-e", "1x6"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 frozen: an input of the program (input)" in out
    assert "1 frozen: an output of the program (aten.linear.default)" in out


def test_trace_explains_one_axis(capsys: Capture) -> None:
    assert main(["trace", f"{MODULE}:build", "-e", "1x6", "--axis", "0.out"]) == 0
    assert capsys.readouterr().out.startswith("axis 0.out: 12 indices, prunable")


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_trace_draws(capsys: Capture, tmp_path: Path, suffix: str) -> None:
    assert main(["trace", f"{MODULE}:build", "-e", "1x6", "--graph", str(tmp_path / f"net.{suffix}")]) == 0
    assert "0.out" in (tmp_path / f"net.{suffix}").read_text()
    assert "axes can be cut" in capsys.readouterr().out


def test_trace_prints_the_typed_program(capsys: Capture) -> None:
    assert main(["trace", f"{MODULE}:tokens", "-e", "int64:1x5", "--text"]) == 0
    assert "aten.embedding.default" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        ("build", "1x7", "does not accept the example inputs ((1, 7))"),
        ("tokens", "1x5", "does not accept the example inputs ((1, 5))"),
        ("poisoned", "1x6", "0.weight holds NaN or infinite values"),
    ],
)
def test_trace_of_what_cannot_be_traced(capsys: Capture, model: str, example: str, message: str) -> None:
    assert main(["trace", f"{MODULE}:{model}", "-e", example]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_examples_are_the_same_every_time() -> None:
    specs = (InputSpec((2, 3)), InputSpec((2, 5), "int64"), InputSpec((4,), "bool"), InputSpec((2,), "bfloat16"))
    first, second = jobs.example_tensors(specs), jobs.example_tensors(specs)
    assert [(tuple(t.shape), t.dtype) for t in first] == [
        ((2, 3), torch.float32),
        ((2, 5), torch.int64),
        ((4,), torch.bool),
        ((2,), torch.bfloat16),
    ]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@dataclass
class StandIn:
    """A compile that records what it was asked for and returns a result that met the budget or not."""

    met: bool
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    done: list[str] = field(default_factory=list[str])

    def compile(self, model: torch.nn.Module, example: tuple[torch.Tensor, ...], **options: Any) -> Any:
        options["progress"]("measure kernels", 2, 2)
        self.asked = {"model": model, "example": example} | options
        measured = Latency(0.0049, 0.0048, 0.005)
        latency = SimpleNamespace(budget=0.005, predicted=measured, measured=measured)
        quiet = {"too_noisy": False, "noisy_kernels": 0}
        return SimpleNamespace(met=self.met, latency=latency, save=self.write("save"), report=self.write("report"), **quiet)

    def write(self, what: str) -> Callable[[Path], None]:
        return lambda path: self.done.append(f"{what} {path}")


@pytest.mark.parametrize(("met", "status"), [(True, 0), (False, 1)])
def test_compile(capsys: Capture, monkeypatch: pytest.MonkeyPatch, met: bool, status: int) -> None:
    stand_in = StandIn(met)
    monkeypatch.setattr(api, "compile", stand_in.compile, raising=False)
    options = {
        "-e": "1x6",
        "--data": f"{MODULE}:loader",
        "--latency": "40%",
        "--out": "out",
        "--evaluate": f"{MODULE}:score",
        "--preset": "smcp",
        "--db": "m.db",
    }
    assert main(["compile", f"{MODULE}:build", *(word for pair in options.items() for word in pair)]) == status
    assert stand_in.done == ["save out", "report out/report.html"]
    asked = stand_in.asked
    assert asked["latency"] == Budget(0.4, "share")
    assert [tuple(t.shape) for t in asked["example"]] == [(1, 6)]
    assert asked["data"][0][0].shape == (2, 6)
    assert asked["evaluate"](None) == 0.5
    assert (asked["preset"], asked["criterion"]) == ("smcp", None)
    assert (asked["finetune"], asked["target"], asked["database"]) == (None, "llvm", Path("m.db"))
    out, err = capsys.readouterr()
    assert ("met" if met else "missed") in out
    assert "measure kernels: 2/2" in err


def test_load(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path, factory: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        assert folder == tmp_path
        return factory()

    monkeypatch.setattr(api, "load", load, raising=False)
    assert main(["load", str(tmp_path), f"{MODULE}:build"]) == 0
    assert capsys.readouterr().out.strip() == f"loaded {tmp_path}: Sequential, 136 parameters"


@pytest.mark.parametrize(("met", "status"), [(True, 0), (False, 1)])
def test_demo(capsys: Capture, monkeypatch: pytest.MonkeyPatch, met: bool, status: int) -> None:
    stand_in = ModuleType("billhook.demo")

    def run(_out: Path, **options: Any) -> Any:
        assert set(options) == {"database", "progress"}
        return SimpleNamespace(met=met)

    stand_in.run = run  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "billhook.demo", stand_in)
    monkeypatch.setattr("billhook.demo", stand_in, raising=False)
    assert main(["demo", "--out", "shown"]) == status
    assert capsys.readouterr().out.strip() == "shown/report.html"
