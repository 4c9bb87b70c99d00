"""Sparsity as an option of compile: layers chosen by price and by loss, in a result that is saved, loaded and verified."""

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from counted import counted_compile
from torch.nn import functional as F

import billhook as bh
from billhook.codegen.bundle import verify
from billhook.codegen.host import host_target
from billhook.compiler.pipeline import Job, make_job
from billhook.compiler.result import Result
from billhook.compiler.sparsify import check_sparsity, widths_budget
from billhook.ir.block_sparse import BlockPattern
from billhook.ir.errors import OptionError
from billhook.ir.target import Target
from billhook.passes.recover import FinetuneConfig
from tests.support.tiny import batches, example, tiny


@pytest.fixture(scope="module", params=["blocks", "patterns"])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Result]:
    def job(target: Target) -> Job:
        return make_job(
            *(tiny(), example(), target, "50%"),
            data=batches(),
            evaluate=None,
            finetune=FinetuneConfig(epochs=1, lr=1e-4) if request.param == "blocks" else None,
            loss=F.cross_entropy,
            criterion=None,
            score_batches=2,
            probe_batches=1,
            peers=(),
            database=Path("unused"),
            threads=1,
            sparsity=request.param,
        )

    with pytest.MonkeyPatch.context() as patch:
        yield counted_compile(job, tmp_path_factory.mktemp("counted"), patch.setattr)


def nonzero_columns(weight: torch.Tensor, pattern: BlockPattern) -> set[int]:
    """In how many columns the blocks have anything."""
    return {int(rows.ne(0).any(0).sum()) for rows in weight.detach().reshape(len(weight), -1).split(pattern.rows)}


def test_widths_and_layers_meet_the_budget_together(result: Result) -> None:
    assert 0.6 * result.latency.budget < result.latency.measured.seconds <= result.latency.budget
    assert result.latency.predicted.seconds == pytest.approx(result.latency.measured.seconds, rel=0.02)
    assert any(size < 32 for size in result.plan.sizes().values())
    assert any(f"{len(result.sparse.chosen)} of {result.sparse.layers} layers are sparse" in note for note in result.record().notes)


def test_what_is_sparse_has_sparse_kernels_and_equals_torch(result: Result) -> None:
    assert result.sparse.chosen
    for name, pattern in result.sparse.chosen.items():
        assert nonzero_columns(result.model.get_parameter(name), pattern) == {pattern.kept}
    kernels = [k.workload.anchor.op for k in result.build.network.kernels]
    assert sum(op.startswith("billhook.block") for op in kernels) == len(result.sparse.chosen)
    with torch.no_grad():
        expected = result.model.eval()(example())
    (found,) = result.build.artifact.run(example())
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert result.build.error < 1e-5


def test_the_bundle_verifies_and_loads_with_its_zeros(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    assert verify(tmp_path / "out").ok
    model = bh.load(tmp_path / "out", lambda: tiny(seed=5))
    for name in result.sparse.chosen:
        assert torch.equal(model.get_parameter(name), result.model.get_parameter(name))
    with torch.no_grad():
        assert torch.equal(model(batches()[0][0]), result.model.eval()(batches()[0][0]))


def test_widths_take_half_of_the_way() -> None:
    assert widths_budget(0.25, 1.0) == pytest.approx(0.5)
    assert widths_budget(2.0, 1.0) == 1.0, "a budget above what it takes asks for nothing"


@pytest.mark.parametrize(
    ("name", "target", "precision", "message"),
    [
        ("block", host_target(), "fp32", "did you mean blocks"),
        ("blocks", host_target(), "int8", "not in int8"),
        ("patterns", Target("opencl", "", 4, 4, 32, 1), "fp32", "opencl has no sparse kernels"),
    ],
)
def test_what_has_no_sparse_kernels_is_said(name: str, target: Target, precision: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_sparsity(name, target, precision)


def test_a_board_has_no_sparse_layers() -> None:
    with pytest.raises(OptionError, match="no sparse layers"):
        bh.compile(tiny(), example(), target="fpga:ulx3s", sparsity="blocks")
