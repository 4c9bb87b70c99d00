"""`bh.compile(target="fpga:...")`: one interface with the other targets, and cycles that are never shown as time."""

from pathlib import Path

import pytest
import torch
from fpga_cases import SMALL, Block, built, samples

import billhook as bh
from billhook.codegen.fpga.bundle import is_fpga_bundle, verify_fpga
from billhook.codegen.fpga.pricing import Pricer
from billhook.compiler.fpga import FpgaOptions, board_named, compile_fpga, fpga_scores
from billhook.compiler.fpga_cost import dense_partition, fpga_target
from billhook.compiler.fpga_prune import allocate
from billhook.compiler.fpga_result import TOLERANCE, FpgaResult
from billhook.ir.errors import OptionError
from billhook.passes.judge import repaired_loss
from billhook.passes.saliency import Data


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.cache.mkdir("fpga"))  # pyright: ignore[reportOptionalMemberAccess]


def logits(model: torch.nn.Module) -> float:
    """An evaluation: how many numbers the network gives for four samples."""
    with torch.no_grad():
        return float(model(torch.cat(samples())).numel())


def block() -> torch.nn.Module:
    torch.manual_seed(0)
    return Block().eval()


def test_a_budget_of_cycles_is_met_in_the_simulator(cache: Path, tmp_path: Path) -> None:
    built(SMALL, cache)  # or skip
    data = [(torch.cat(samples()), torch.zeros(4, dtype=torch.long))]
    options = FpgaOptions(board_named("fpga:ulx3s"), 0.7, SMALL, data, evaluate=logits)
    result = compile_fpga(block(), samples()[0], options, cache)
    assert result.met
    assert result.budget == (asked := round(0.7 * result.dense.cycles))
    assert result.cycles <= asked * (1 + TOLERANCE)
    assert result.quality == {"dense": 20.0, "pruned": 20.0, "int8": 20.0}
    result.save(tmp_path / "bundle")
    assert is_fpga_bundle(tmp_path / "bundle")
    assert verify_fpga(tmp_path / "bundle", cache).ok
    assert "cycles" in str(result)
    assert "assumed; not run on a board" in str(result)
    assert " ms" not in str(result)


def test_with_data_no_plan_is_taken_that_loses_more_than_that_by_plain_scores() -> None:
    data = [(torch.cat(samples()), torch.arange(4) % 5)]
    board = board_named("fpga:ulx3s")
    options = FpgaOptions(board, 0.5, SMALL, data)
    found = compile_fpga(block(), samples()[0], options, None)
    scores, design = fpga_scores(found.program, options), found.dense
    parts = dense_partition(found.program, fpga_target(board.name, SMALL))
    plain = allocate(found.program, parts, design, Pricer(SMALL, board.memory), scores, round(0.5 * design.cycles))
    batches = Data(data, options.loss, 1)
    assert plain.cycles <= 0.5 * design.cycles
    assert repaired_loss(found.program, found.pruned.plan, batches) <= repaired_loss(found.program, plain.plan, batches) + 1e-6


def test_the_one_interface_reaches_the_board(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[FpgaOptions, Path | None]] = []

    def stand_in(model: torch.nn.Module, example: torch.Tensor, options: FpgaOptions, cache: Path | None, progress: object) -> str:
        asked.append((options, cache))
        return "made"

    monkeypatch.setattr("billhook.compiler.fpga_job.compile_fpga", stand_in)
    found = bh.compile(
        block(), samples()[0], target="fpga:zcu104", latency="60%", constraints=("divisible(*.conv1.out, 8)",), database=tmp_path / "k.db"
    )
    assert found == "made"
    ((options, where),) = asked
    assert (options.board.name, options.cycles) == ("zcu104", 0.6)
    assert len(options.constraints) == 1
    assert where == tmp_path / "simulators"


def test_the_result_of_the_search_without_a_simulator_is_modelled() -> None:
    result = compile_fpga(block(), samples()[0], FpgaOptions(board_named("fpga:pynq-z2"), 1.0, SMALL), None)
    assert isinstance(result, FpgaResult)
    assert result.met
    assert result.cycles == result.design.cycles
    assert result.target.width_step == SMALL.columns


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"latency": "12ms"}, "no time; give a share"),
        ({"target": "fpga:abacus"}, "choose one of zcu102"),
        ({"target": "fpga"}, "choose one of zcu102"),
        ({"device": "pi"}, "a board is simulated, not measured"),
        ({"example_inputs": (torch.zeros(1, 3, 12, 12),) * 2}, "networks with one tensor"),
        ({"example_inputs": torch.zeros(2, 3, 12, 12)}, "a batch of 2"),
    ],
)
def test_what_a_board_does_not_have_is_refused(wrong: dict[str, object], says: str) -> None:
    given: dict[str, object] = {"example_inputs": samples()[0], "target": "fpga:ulx3s", "latency": 0.7} | wrong
    with pytest.raises(OptionError, match=says):
        bh.compile(block(), **given)  # pyright: ignore[reportArgumentType]
