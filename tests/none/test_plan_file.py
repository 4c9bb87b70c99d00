import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from billhook.ir import planfile
from billhook.ir.axis import Reason
from billhook.ir.capture import capture
from billhook.ir.errors import OutputError, PlanError
from billhook.ir.plan import Plan, make_plan
from billhook.ir.planfile import load_plan, load_weights, save_plan
from billhook.ir.program import Program
from billhook.ir.weights import digest
from billhook.passes.cut import cut_graph
from billhook.passes.infer import infer_axes


def network(width: int = 6, seed: int = 0) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 1))


def traced(model: nn.Module) -> Program:
    return infer_axes(capture(model, (torch.zeros(2, 3, 8, 8),)))


def axis_of(program: Program) -> str:
    return next(axis.name for axis in program.axes if axis.prunable and axis.size == 6)


def pruned() -> tuple[Plan, Program, nn.Module]:
    program = traced(network())
    plan = make_plan(program, {axis_of(program): (0, 2, 5)})
    return plan, program, cut_graph(program, plan)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_plan(tmp_path / "out", *pruned())
    return tmp_path / "out"


def edited(folder: Path, change: Mapping[str, Any]) -> None:
    path = folder / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_a_fresh_model_becomes_bit_equal_to_the_saved_one(saved: Path) -> None:
    _, _, module = pruned()
    fresh = traced(network(seed=7))
    file = load_plan(saved)
    again = cut_graph(fresh, file.plan(fresh))
    load_weights(saved, again)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), module.eval()(x))
    assert file.form == "graph"
    assert list(file.kept().values()) == [(0, 2, 5)]


def test_the_file_is_readable_and_versioned(saved: Path) -> None:
    text = (saved / "plan.json").read_text()
    data = json.loads(text)
    assert data["schema_version"] == 1
    assert data["versions"]["torch"].startswith("2.")
    assert '{"size": 6, "kept": [0, 2, 5]}' in text
    assert data["dense_sha256"] == digest(traced(network()).state())
    assert data["dense_sha256"] != digest(traced(network(seed=7)).state())


def test_the_example_inputs_come_back(saved: Path) -> None:
    args, kwargs = load_plan(saved).example()
    assert [(tuple(x.shape), x.dtype) for x in args] == [((2, 3, 8, 8), torch.float32)]
    assert not kwargs


def test_nested_inputs_have_to_be_given_again(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, pair: list[torch.Tensor]) -> torch.Tensor:
            return pair[0] + pair[1]

    program = infer_axes(capture(Pair(), ([torch.zeros(2, 3), torch.zeros(2, 3)],)))
    save_plan(tmp_path, Plan({}), program, Pair())
    with pytest.raises(PlanError, match="not plain tensors"):
        load_plan(tmp_path).example()


def test_the_graph_digest_ignores_what_passes_found_out(saved: Path) -> None:
    program = traced(network())
    relabelled = replace(
        program, axes=tuple(replace(axis, frozen_because=(Reason("n", "op", "why", "/home/me/x.py:3"),)) for axis in program.axes)
    )
    assert planfile.graph_digest(relabelled) == planfile.graph_digest(program) == load_plan(saved).graph_sha256


def test_an_empty_plan_can_be_saved(tmp_path: Path) -> None:
    program = traced(network())
    save_plan(tmp_path, Plan({}), program, network())
    file = load_plan(tmp_path)
    assert file.form == "module"
    assert file.plan(program) == Plan({})


def test_another_network_is_refused(saved: Path) -> None:
    file = load_plan(saved)
    with pytest.raises(PlanError, match=r"had size 6, the model's has 5; build it as it was"):
        file.plan(traced(network(width=5)))
    other = traced(nn.Sequential(network()[0], network()[1], nn.SiLU(), network()[3]))
    with pytest.raises(PlanError, match="graph differs"):
        file.plan(other)
    with pytest.raises(PlanError, match="which the model does not have"):
        file.plan(traced(nn.Linear(8, 8)))


def test_versions_that_differ_are_named_as_the_remedy(saved: Path) -> None:
    edited(saved, {"versions": {"torch": "2.99"}})
    with pytest.raises(PlanError, match=r"with torch 2\.99"):
        load_plan(saved).plan(traced(network(width=5)))


def test_a_changed_byte_in_the_weights_is_found(saved: Path) -> None:
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"model\.safetensors: differs from what plan\.json says"):
        load_plan(saved)


@pytest.mark.parametrize("name", ["plan.json", "model.safetensors"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(PlanError, match=f"{name}: No such file"):
        load_plan(saved)


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1', b"\xff\xfe", b"[]", b"null", b"3"])
def test_damaged_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / "plan.json").write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this Billhook reads up to 1; upgrade"),
        ({"form": "pickle"}, "form"),
        ({"graph_sha256": "x"}, "graph_sha256"),
        ({"surprise": 1}, "surprise"),
        ({"axes": {"a": {"size": 3, "kept": [1, 1]}}}, r"axes\.a.*sorted, unique"),
        ({"axes": {"a": {"size": 3, "kept": [2, 3]}}}, "below 3"),
        ({"axes": {"a": {"size": 3, "kept": [-1]}}}, r"axes\.a\.kept"),
    ],
)
def test_wrong_content_is_named(saved: Path, change: dict[str, Any], message: str) -> None:
    edited(saved, change)
    with pytest.raises(PlanError, match=message):
        load_plan(saved)


def test_weights_that_do_not_fit_are_named(saved: Path) -> None:
    with pytest.raises(PlanError, match=r"the shape of 0\.weight is \(3, 3, 3, 3\), the model's is \(6, 3, 3, 3\)"):
        load_weights(saved, network())
    with pytest.raises(PlanError, match="has no tensor weight"):
        load_weights(saved, nn.Linear(2, 2))
    with pytest.raises(PlanError, match=r"holds .* which the model does not have"):
        load_weights(saved, nn.Sequential())


def test_damaged_weights_are_one_line(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"1234567890")
    with pytest.raises(PlanError, match="cannot be read"):
        load_weights(saved, network())


def test_ties_survive(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight
            whole = torch.arange(6.0)
            self.register_buffer("front", whole[:4])
            self.register_buffer("back", whole[2:])

    planfile.write_weights(Tied(), tmp_path / "w.safetensors")
    opened: Any = safe_open
    with opened(tmp_path / "w.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["back", "embed.weight", "front"]
    fresh = Tied()
    planfile.read_weights(tmp_path / "w.safetensors", fresh)
    assert fresh.head.weight is fresh.embed.weight
    assert torch.equal(fresh.get_buffer("back"), torch.tensor([2.0, 3.0, 4.0, 5.0]))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_plan(tmp_path / "out", *pruned())
    assert not list(tmp_path.iterdir())


def test_weights_to_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        save_plan(tmp_path / "file" / "out", *pruned())
    with pytest.raises(OutputError, match="cannot be written"):
        planfile.write_weights(network(), tmp_path / "file" / "w.safetensors")
