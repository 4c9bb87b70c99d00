from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from billhook import peers
from billhook.ir.capture import capture
from billhook.ir.errors import OptionError
from billhook.ir.plan import make_plan
from billhook.passes.cut import cut_graph
from billhook.passes.infer import infer_axes
from billhook.peers import Absent, Contender, Subject, build_peer, build_peers

# torch.compile takes its time and is tested in tests/slow/test_peers_compile.py.
QUICK = [name for name in peers.PEERS if name != "torch.compile"]


class Two(nn.Module):
    """Two inputs, one by name; outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.dropout = nn.Dropout(0.9)

    def forward(self, image: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.dropout(torch.relu(self.conv(image)))
        return {"features": features * scale, "sum": features.sum((1, 2, 3))}


def convolutional() -> Subject:
    torch.default_generator.manual_seed(0)
    return Subject(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)), (torch.randn(1, 3, 12, 12),))


def pruned() -> Subject:
    subject = convolutional()
    program = infer_axes(capture(subject.model, subject.args))
    axis = next(axis.name for axis in program.axes if axis.prunable and axis.size == 16)
    return Subject(cut_graph(program, make_plan(program, {axis: range(0, 16, 2)})), subject.args)


def two() -> Subject:
    torch.default_generator.manual_seed(0)
    return Subject(Two(), (torch.randn(2, 3, 9, 9),), {"scale": torch.tensor(3.0)})


@cache
def shared(make: Callable[[], Subject]) -> Subject:
    """One subject for all peers, as a comparison has it: it is exported to ONNX once."""
    return make()


def need(name: str) -> None:
    for package in {"ONNX Runtime": ["onnxruntime", "onnxscript"], "OpenVINO": ["openvino", "onnxscript"]}.get(
        name.split(" default")[0], []
    ):
        pytest.importorskip(package)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("make", [convolutional, pruned, two])
def test_every_peer_agrees_with_eager(name: str, make: Callable[[], Subject]) -> None:
    need(name)
    found = build_peer(shared(make), name, threads=1)
    if name == "OpenVINO default precision" and isinstance(found, Absent):
        assert "its default precision on this processor is float32" in found.reason
        return
    assert isinstance(found, Contender), found
    assert found.error <= (5e-2 if found.precision == "bfloat16" else 1e-4)
    assert found.threads == 1
    assert found.version[0].isdigit()
    found.run()


def test_peers_are_built_one_after_the_other() -> None:
    found = build_peers(convolutional(), 1, ["torch eager", "torch eager channels-last"])
    assert next(found).name == "torch eager"
    assert [peer.name for peer in found] == ["torch eager channels-last"]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(OptionError, match="no peer is called 'tensorrt'; known: torch eager, "):
        build_peer(convolutional(), "tensorrt", 1)


def test_channels_last_needs_an_image() -> None:
    found = build_peer(Subject(nn.Linear(4, 4), (torch.zeros(1, 4),)), "torch eager channels-last", 1)
    assert isinstance(found, Absent)
    assert "takes no image" in found.reason


def failing(failure: Exception) -> Callable[[Subject, int], Any]:
    def builder(subject: Subject, threads: int) -> Any:
        raise failure

    return builder


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ModuleNotFoundError("No module named 'openvino'"), "not installed: No module named 'openvino'"),
        (RuntimeError("unsupported operator\nat line 3"), "cannot run this network: RuntimeError: unsupported operator"),
        (ArithmeticError(), "cannot run this network: ArithmeticError: no reason given"),
    ],
)
def test_a_peer_that_fails_is_absent_with_the_reason(failure: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, {"other": ("torch", failing(failure))})
    assert build_peer(convolutional(), "other", 1) == Absent("other", reason)


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_a_peer_with_wrong_outputs_is_not_timed(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    _, eager = peers.PEERS["torch eager"]

    def wrong(subject: Subject, threads: int) -> Any:
        scaled = convolutional()
        with torch.no_grad():
            for parameter in scaled.model.get_submodule("3").parameters():
                parameter.mul_(factor)
        return eager(scaled, threads)

    register(monkeypatch, {"wrong": ("torch", wrong)})
    found = build_peer(convolutional(), "wrong", 1)
    assert isinstance(found, Absent)
    assert "its output differs from torch eager's by" in found.reason


def test_threads_are_those_asked_for_and_are_restored() -> None:
    before = torch.get_num_threads()
    found = build_peer(convolutional(), "torch eager", before + 1)
    assert torch.get_num_threads() == before
    assert isinstance(found, Contender)
    found.run()
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_the_model_of_the_user_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).train()
    list(build_peers(Subject(model, (torch.zeros(1, 3, 8, 8),)), 1, ["torch eager channels-last"]))
    assert model.training
    assert model.get_parameter("0.weight").is_contiguous()


def register(monkeypatch: pytest.MonkeyPatch, more: Mapping[str, tuple[str, Callable[[Subject, int], Any]]]) -> None:
    monkeypatch.setattr(peers, "PEERS", {**peers.PEERS, **more})
