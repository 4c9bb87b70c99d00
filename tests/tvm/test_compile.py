"""The whole job on a tiny network: budget, closed loop, result, saving, loading, and what goes wrong."""

import copy
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import billhook as bh
from billhook.codegen.bundle import verify
from billhook.codegen.bundle_runner import build_runner
from billhook.codegen.host import host_target
from billhook.compiler.engine import Engine
from billhook.compiler.result import Result
from billhook.ir.errors import AxisError, BudgetError, BundleError, DataError, OptionError, PlanError
from billhook.ir.plan import Plan
from billhook.passes.cut import cut_graph
from billhook.passes.recover import FinetuneConfig
from tests.support.tiny import batches, example, tiny


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("db") / "measurements.sqlite"


@pytest.fixture(scope="module")
def result(database: Path) -> Result:
    """70% of the latency, so that noise on a busy machine cannot make the budget unreachable."""
    return bh.compile(
        tiny(),
        example(),
        latency="70%",
        data=batches(),
        finetune=FinetuneConfig(epochs=1, lr=1e-4),
        database=database,
        peers=("torch eager",),
    )


def test_result_is_smaller_trainable_and_consistent(result: Result) -> None:
    dense = sum(p.numel() for p in tiny().parameters())
    assert sum(p.numel() for p in result.model.parameters()) < dense
    assert result.latency.measured.low <= result.latency.measured.seconds <= result.latency.measured.high
    assert result.fitted.solution.gap <= 1e-3
    assert result.oracle_error < 1e-4
    assert result.build.error < 1e-4
    trained = copy.deepcopy(result.model).train()
    loss = trained(batches()[0][0]).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in trained.parameters() if p.numel())  # a removed branch leaves empty tensors


def test_compiled_output_is_the_models(result: Result) -> None:
    with torch.no_grad():
        expected = result.model.eval()(example())
    (found,) = result.build.artifact.run(example())
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_saved_bundle_verifies_and_loads_bit_equal(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    found = verify(tmp_path / "out")
    assert found.ok, str(found)
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    model = bh.load(tmp_path / "out", lambda: tiny(seed=5))
    inputs = batches()[0][0]
    with torch.no_grad():
        assert torch.equal(model(inputs), result.model.eval()(inputs))


def test_constraints_are_kept_through_the_whole_job(database: Path) -> None:
    """One of them excludes the dense width, the other forces a width that the hardware does not favour."""
    constraints = (bh.divisible("stem.out", 12), "fixed(conv1.out, 20)")
    found = bh.compile(tiny(), example(), latency="95%", data=batches(), constraints=constraints, database=database, peers=("torch eager",))
    kept = found.fitted.plan.sizes()
    assert kept["conv1.out"] == 20
    assert kept["stem.out"] in {12, 24}
    with pytest.raises(AxisError, match="no axis matches"):
        bh.compile(tiny(), example(), constraints=("uniform(*.heads)",), database=database)


def test_the_cpp_runner_gives_the_same_output(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    program = build_runner(tmp_path / "out", tmp_path / "build")
    subprocess.run([program, tmp_path / "out", "--output", tmp_path / "out.bin"], env={}, check=True, timeout=60)
    (expected,) = result.build.artifact.run(example())
    assert np.array_equal(np.fromfile(tmp_path / "out.bin", np.float32), expected.numpy().ravel())


def test_changed_byte_is_found(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        verify(tmp_path / "out")
    with pytest.raises(PlanError, match=r"model\.safetensors"):
        bh.load(tmp_path / "out", tiny)


def test_second_run_measures_nothing(result: Result, database: Path) -> None:
    """Everything that the first run timed is found again; the dense network alone is a lower bound for that."""

    def silent(*_: object) -> None: ...

    with Engine(host_target(), database, silent) as engine:
        program = bh.trace(tiny(), example())
        engine.build(cut_graph(program, Plan({})), program.example)
        engine.build(result.pruned.program.graph, program.example)
        assert engine.measured == 0


def test_impossible_budget_states_the_smallest_latency(result: Result, database: Path) -> None:
    assert result.plan.kept
    with pytest.raises(BudgetError, match="smallest reachable"):
        bh.compile(tiny(), example(), latency="1us", database=database, peers=())


@pytest.mark.parametrize(("preset", "criterion"), [("uniform", None), ("halp", "l2"), ("flops", "l1")])
def test_a_preset_chooses_the_sizes_and_its_gap_is_stated(result: Result, database: Path, preset: str, criterion: str | None) -> None:
    assert result.plan.kept
    other = bh.compile(tiny(), example(), latency=0.5, preset=preset, criterion=criterion, database=database, peers=())
    assert other.plan.kept
    assert 0 <= other.fitted.solution.gap < 1


def test_bad_options_fail_before_any_work(tmp_path: Path) -> None:
    database = tmp_path / "untouched.sqlite"
    with pytest.raises(OptionError, match="taylr"):
        bh.compile(tiny(), example(), criterion="taylr", database=database)
    with pytest.raises(OptionError, match="trials: -1 plans"):
        bh.compile(tiny(), example(), trials=-1, database=database)
    with pytest.raises(OptionError, match="did you mean halp"):
        bh.compile(tiny(), example(), preset="hapl", database=database)
    with pytest.raises(DataError, match="preset halp scores by taylor"):
        bh.compile(tiny(), example(), preset="halp", database=database)
    with pytest.raises(OptionError, match="target"):
        bh.compile(tiny(), example(), target="abacus", database=database)
    with pytest.raises(DataError, match="fine-tuning"):
        bh.compile(tiny(), example(), finetune=FinetuneConfig(), database=database)
    assert not database.exists()


def test_interrupt_keeps_what_was_measured(tmp_path: Path) -> None:
    database = tmp_path / "measurements.sqlite"

    def interrupt(stage: str, done: int, _total: int, /) -> None:
        if stage == "measure dense kernels" and done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bh.compile(tiny(), example(), database=database, peers=(), progress=interrupt)
    seen: list[int] = []

    def watch(stage: str, done: int, _total: int, /) -> None:
        if stage == "measure dense kernels":
            seen.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bh.compile(tiny(), example(), database=database, peers=(), progress=watch)
    assert seen[0] >= 2
