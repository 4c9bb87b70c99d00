"""nvcc makes one image for both architectures; what it reports and refuses is read; a saved program is the same when loaded."""

import shutil
from pathlib import Path

import pytest
import torch
from cuda_networks import SM90, conv, one_kernel, residual_network

from billhook.codegen.cuda import fatbin
from billhook.codegen.cuda.build import build, generate
from billhook.codegen.cuda.program import load_program
from billhook.ir.errors import BundleError, MeasureError, ToolchainError

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


@needs_nvcc
def test_the_image_holds_both_architectures_and_every_kernel() -> None:
    built = build(one_kernel(conv(tail=True)), SM90)
    symbols = {launch.symbol for launch in built.program.launches}
    assert set(built.usage) == {f"{s}@{a}" for s in symbols for a in ("sm_80", "sm_90")}
    assert all(u["spilled_bytes"] == 0 and 0 < u["registers"] <= 255 for u in built.usage.values())
    assert built.program.image[:4] == b"\x50\xed\x55\xba", "the magic number of fat binaries"
    assert built.program.architectures == ("sm_80", "sm_90")


@needs_nvcc
def test_refused_source_is_one_line() -> None:
    with pytest.raises(MeasureError, match=r"^nvcc refuses the generated source: .*undefined_name"):
        fatbin.compile_fatbin('extern "C" __global__ void k(float* x) { x[0] = undefined_name; }', ["sm_90"])


def test_a_missing_nvcc_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="nvcc not found; install the CUDA toolkit"):
        fatbin.find_nvcc(str(tmp_path))


def test_a_saved_program_is_loaded_as_it_was(tmp_path: Path) -> None:
    program, _ = generate(residual_network(), SM90)
    program.save(tmp_path / "p")
    loaded = load_program(tmp_path / "p")
    assert str(loaded) == str(program)
    assert (loaded.inputs, loaded.outputs, loaded.offsets) == (program.inputs, program.outputs, program.offsets)
    assert all(torch.equal(loaded.constants[n], c) for n, c in program.constants.items())


def test_damaged_programs_are_refused(tmp_path: Path) -> None:
    program, _ = generate(one_kernel(conv()), SM90)
    program.save(tmp_path / "p")
    with pytest.raises(BundleError, match="cannot write"):
        program.save(tmp_path / "p")
    (tmp_path / "p" / "program.json").write_text('{"version": 99}')
    with pytest.raises(BundleError, match="has version 99"):
        load_program(tmp_path / "p")
    (tmp_path / "p" / "program.json").write_text("{")
    with pytest.raises(BundleError, match="is damaged"):
        load_program(tmp_path / "p")
    (tmp_path / "p" / "kernels.fatbin").unlink()
    with pytest.raises(BundleError, match=r"has no kernels\.fatbin"):
        load_program(tmp_path / "p")
