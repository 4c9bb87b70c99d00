import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from billhook.codegen.artifact import load_artifact
from billhook.codegen.bundle import BundleContent
from billhook.codegen.bundle_runner import build_runner
from billhook.ir.errors import BundleError, ToolchainError


@pytest.fixture(scope="module")
def runner(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_runner(original, tmp_path_factory.mktemp("build"))


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # No variable of ours reaches the program: not Python, not the libraries of the wheels.
    return subprocess.run([program, *map(str, arguments)], env={}, capture_output=True, text=True, check=False, timeout=60)


def test_the_output_equals_that_of_python(runner: Path, original: Path, content: BundleContent, tmp_path: Path) -> None:
    done = run(runner, original, "--output", tmp_path / "out.bin", "--time", 5)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert re.search(r"output 0: max relative error \S+, tolerance 0\.0001: ok", done.stdout)
    assert re.search(r"latency: min \S+ ms, median \S+ ms, 5 runs", done.stdout)
    (python,) = load_artifact(original / "lib" / "model.so").run(*content.vector.inputs)
    assert np.array_equal(np.fromfile(tmp_path / "out.bin", np.float32), python.numpy().ravel())


def test_own_inputs(runner: Path, original: Path, content: BundleContent, tmp_path: Path) -> None:
    (x,) = content.vector.inputs
    (2 * x).tofile(tmp_path / "in.bin")
    done = run(runner, original, "--input", tmp_path / "in.bin", "--output", tmp_path / "out.bin", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    (python,) = load_artifact(original / "lib" / "model.so").run(2 * x)
    assert np.array_equal(np.fromfile(tmp_path / "out.bin", np.float32), python.numpy().ravel())


def test_it_depends_on_no_python(runner: Path) -> None:
    libraries = subprocess.run(["ldd", runner], capture_output=True, text=True, check=True).stdout
    assert "libtvm_runtime" in libraries
    assert "not found" not in libraries
    assert "python" not in libraries.replace(str(runner.parent), "")


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_an_installed_runner_moves_with_its_bundle(runner: Path, bundle: Path) -> None:
    subprocess.run(["cmake", "--install", runner.parent, "--prefix", bundle], capture_output=True, check=True)
    moved = bundle.rename(bundle.with_name("moved"))
    libraries = subprocess.run(["ldd", moved / "bin" / runner.name], capture_output=True, text=True, check=True).stdout
    assert f"{moved}/bin/../lib/libtvm_runtime.so" in libraries
    assert run(moved / "bin" / runner.name, moved).returncode == 0


@pytest.mark.parametrize("offset", [1.0, float("nan")])
def test_a_wrong_output_is_found(runner: Path, bundle: Path, content: BundleContent, offset: float) -> None:
    (content.vector.outputs[0] + np.float32(offset)).tofile(bundle / "test" / "output0.bin")
    done = run(runner, bundle)
    assert done.returncode == 1
    assert "DIFFERS" in done.stdout


def test_a_truncated_file_is_named(runner: Path, bundle: Path) -> None:
    (bundle / "test" / "input0.bin").write_bytes(b"1234")
    done = run(runner, bundle)
    assert done.returncode == 2
    assert re.search(r"input0\.bin: expected a file of 768 bytes, found 4", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no bundle named"),
        (["/nowhere"], "is this a bundle folder?"),
        (["a", "b"], "one bundle at a time"),
        (["a", "--time", "x"], "--time x: not a number above zero"),
        (["a", "--threads", "0"], "--threads 0: not a number above zero"),
        (["a", "--time"], "--time: needs a value"),
        (["a", "--colour", "x"], "--colour: unknown option"),
    ],
)
def test_bad_arguments(runner: Path, arguments: list[str], text: str) -> None:
    done = run(runner, *arguments)
    assert done.returncode == 2
    assert text in done.stderr


def test_too_many_inputs_or_outputs(runner: Path, original: Path, tmp_path: Path) -> None:
    assert "takes 1 inputs" in run(runner, original, "--input", "a", "--input", "b").stderr
    assert "has 1 outputs" in run(runner, original, "--output", tmp_path / "a", "--output", tmp_path / "b").stderr
    assert "cannot be written" in run(runner, original, "--output", tmp_path).stderr


def test_a_library_of_another_make_is_one_line(runner: Path, bundle: Path) -> None:
    (bundle / "lib" / "model.so").write_bytes(b"no library")
    done = run(runner, bundle)
    assert done.returncode == 2
    assert "error: " in done.stderr


def test_without_cmake_the_compiler_is_called_directly(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which

    def without_cmake(name: str) -> str | None:
        return None if name == "cmake" else which(name)

    monkeypatch.setattr(shutil, "which", without_cmake)
    assert run(build_runner(original, tmp_path / "build"), original).returncode == 0


def test_without_a_compiler(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr(shutil, "which", nothing)
    with pytest.raises(ToolchainError, match="no C\\+\\+ compiler found"):
        build_runner(original, tmp_path / "build")


def test_a_broken_source_is_one_line(bundle: Path, tmp_path: Path) -> None:
    (bundle / "runner" / "main.cc").write_text("int main( {")
    with pytest.raises(BundleError, match=r"does not build: .*error") as raised:
        build_runner(bundle, tmp_path / "build")
    assert "\n" not in str(raised.value)
