"""Running an arm64 bundle on this machine: its C++ runner, cross-compiled, under qemu. What it computes counts, its time does not."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from billhook.codegen.bundle_runner import RUNNER
from billhook.codegen.bundle_vector import TestVector, write_vector
from billhook.codegen.toolchain import first_error
from billhook.ir.errors import BundleError

from .toolchain import SYSROOT, cross_compiler, emulator

_SECONDS = 600.0


def build_arm_runner(bundle: Path, build: Path) -> Path:
    """Cross-compile the runner of an arm64 bundle in the folder `build`; the program's path.

    BundleError with the compiler's first error; ToolchainError if there is no cross compiler.
    """
    build.mkdir(parents=True, exist_ok=True)
    lib, source, program = (bundle / "lib").resolve(), (bundle / "runner").resolve(), build / RUNNER
    libraries = [str(lib / "libtvm_ffi.so"), str(lib / "libtvm_runtime.so")]
    flags = ["-O2", "-DNDEBUG", "-std=c++17", "-isystem", str(source / "include"), "-Wl,--no-as-needed"]
    command = [cross_compiler(), str(source / "main.cc"), "-o", str(program), *flags, *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"the C++ runner does not build for arm64: {first_error(done)}; check that the bundle is whole (billhook verify)")
    return program


def emulated(program: Path, arguments: Sequence[str | Path], libraries: Path, processor: str = "max") -> subprocess.CompletedProcess[str]:
    """Run an arm64 program under qemu, with shared libraries from a folder. BundleError if it does not end within ten minutes."""
    command = [emulator(), "-cpu", processor, "-L", str(SYSROOT), "-E", f"LD_LIBRARY_PATH={libraries.resolve()}", str(program)]
    try:
        return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{program.name} did not end within {_SECONDS:g} s under emulation; use a smaller network") from error


def run_emulated(
    bundle: Path, program: Path, inputs: Sequence[NDArray[Any]], outputs: Sequence[tuple[tuple[int, ...], str]]
) -> list[NDArray[Any]]:
    """What a bundle's network makes of inputs, under qemu. outputs: shape and element type of each.

    BundleError with the runner's message if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
        stage = Path(folder)
        (stage / "test").mkdir()
        (stage / "lib").symlink_to((bundle / "lib").resolve())
        write_vector(stage / "test", TestVector(tuple(inputs), ()))
        files = [stage / f"found{i}.bin" for i in range(len(outputs))]
        arguments: list[str | Path] = [stage]
        for i in range(len(inputs)):
            arguments += ["--input", stage / "test" / f"input{i}.bin"]
        for file in files:
            arguments += ["--output", file]
        done = emulated(program, arguments, bundle / "lib")
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise BundleError(f"the network fails under emulation: {lines[-1] if lines else f'exit status {done.returncode}'}")
        return [np.fromfile(file, dtype).reshape(shape) for file, (shape, dtype) in zip(files, outputs, strict=True)]
