"""Building a bundle's C++ runner from the sources, headers and libraries inside the bundle."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from billhook.ir.errors import BundleError, ToolchainError

RUNNER = "billhook_runner"

_COMPILERS = ("c++", "g++", "clang++")


def build_runner(bundle: Path, build: Path) -> Path:
    """Build the runner in the folder `build` and return the program's path. It needs no Python, neither to build nor to run.

    CMake is used where it is installed, else the C++ compiler itself with the same flags.

    Raises:
        ToolchainError: there is no C++ compiler.
        BundleError: the sources do not compile; the message ends with the compiler's first error.
    """
    compiler = _compiler()
    cmake = shutil.which("cmake")
    source = (bundle / "runner").resolve()
    build = build.resolve()
    build.mkdir(parents=True, exist_ok=True)
    if cmake:
        _run([cmake, "-S", str(source), "-B", str(build), f"-DCMAKE_CXX_COMPILER={compiler}"])
        _run([cmake, "--build", str(build)])
    else:
        _run(_compile(compiler, source, build / RUNNER))
    return build / RUNNER


def _compiler() -> str:
    for name in _COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    raise ToolchainError("no C++ compiler found, which the C++ runner needs; install g++ or clang (Debian: apt-get install g++)")


def _compile(compiler: str, source: Path, program: Path) -> list[str]:
    lib = source.parent / "lib"
    libraries = [str(lib / "libtvm_ffi.so"), str(lib / "libtvm_runtime.so")]
    flags = ["-O3", "-DNDEBUG", "-std=c++17", "-isystem", str(source / "include"), "-Wl,--no-as-needed", f"-Wl,-rpath,{lib}"]
    return [compiler, str(source / "main.cc"), "-o", str(program), *flags, *libraries]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines()
        first = next((line for line in lines if "error" in line.lower()), f"exit status {done.returncode}").strip()
        raise BundleError(
            f"the C++ runner does not build: {Path(command[0]).name}: {first}; check that the bundle is whole (billhook verify)"
        )
