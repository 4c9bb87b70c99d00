"""The whole job in bfloat16 and int8: compiled, bundled, verified, run without Python, refused where the instruction is missing."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import billhook as bh
from billhook.codegen import bundle_machine
from billhook.codegen.bundle import verify
from billhook.codegen.bundle_manifest import read_manifest
from billhook.codegen.bundle_runner import build_runner
from billhook.codegen.host import cpu_flags
from billhook.compiler.precision import PRECISIONS, check_precision
from billhook.compiler.record import checks
from billhook.compiler.result import Result
from billhook.ir.errors import BundleError, OptionError
from tests.support.kernel_workloads import AVX2
from tests.support.tiny import batches, example, tiny

FEATURES = {"bf16": "avx512bf16", "int8": "avx512vnni"}


@pytest.fixture(scope="module", params=FEATURES)
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """90% of the dense network's latency in the same precision, with one width to choose."""
    precision = PRECISIONS[request.param]
    if precision.flag not in cpu_flags():
        pytest.skip(f"this processor lacks {precision.flag}")
    database = tmp_path_factory.mktemp("db") / "measurements.sqlite"
    return bh.compile(
        *(tiny(), example()),
        latency="90%",
        data=batches(),
        database=database,
        peers=(),
        constraints=("fixed(stem.out, 32)",),
        precision=precision.name,
    )


@pytest.fixture(scope="module")
def bundle(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "out"
    result.save(folder)
    return folder


def test_the_network_is_smaller_and_its_kernels_are_narrow(result: Result) -> None:
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in tiny().parameters())
    narrow = {"bf16": "bfloat16", "int8": "quint8"}[result.precision.name]
    assert sum(narrow in k.workload for k in result.kernels) >= len(result.kernels) - 1
    assert 1e-5 < result.build.error < result.precision.tolerance


def test_the_record_says_what_was_checked(result: Result) -> None:
    found = {c.name: c for c in checks(result)}
    assert found["compiled network equals torch"].passed
    assert ("kernels equal integer arithmetic" in found) == (result.precision.name == "int8")
    if result.precision.name == "int8":
        assert found["kernels equal integer arithmetic"].passed
        assert (result.build.kernel_error or 0.0) < 1e-3


def test_the_bundle_verifies_and_names_the_instruction(result: Result, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(bundle).ok
    feature = FEATURES[result.precision.name]
    assert feature in read_manifest(bundle).target.features
    lacking = cpu_flags() - {result.precision.flag}
    monkeypatch.setattr(bundle_machine, "cpu_flags", lambda: lacking)
    with pytest.raises(BundleError, match=f"needs {feature} instructions, which this processor lacks"):
        verify(bundle)


def test_the_cpp_runner_gives_the_same_output(result: Result, bundle: Path, tmp_path: Path) -> None:
    program = build_runner(bundle, tmp_path / "build")
    subprocess.run([program, bundle, "--output", tmp_path / "out.bin"], env={}, check=True, timeout=60)
    (expected,) = result.build.artifact.run(example())
    assert np.array_equal(np.fromfile(tmp_path / "out.bin", np.float32), expected.numpy().ravel())


def test_the_saved_model_is_the_real_one(result: Result, bundle: Path) -> None:
    with torch.no_grad():
        assert torch.equal(bh.load(bundle, lambda: tiny(seed=5))(example()), result.model.eval()(example()))


@pytest.mark.parametrize("name", FEATURES)
def test_a_target_without_the_instruction_is_refused_by_its_flag(name: str) -> None:
    with pytest.raises(OptionError, match=rf"{PRECISIONS[name].flag}.*x86-64-v3 lacks; use fp32"):
        check_precision(name, AVX2)
