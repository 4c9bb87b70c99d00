"""The C++ host of an OpenCL bundle: its sources go into the bundle, and are built there with nothing but OpenCL."""

import subprocess
from importlib import resources
from pathlib import Path

from billhook.codegen.bundle_runner import RUNNER
from billhook.codegen.toolchain import find_compiler, first_error
from billhook.ir.errors import BundleError

SOURCES = ("CMakeLists.txt", "main.cc", "program.h")


def add_host(stage: Path) -> None:
    """Copy the host's sources to runner/ and its licence note to licenses/."""
    home = resources.files("billhook.codegen.opencl") / "host"
    for folder, names in (("runner", SOURCES), ("licenses", ("LICENSES.md",))):
        (stage / folder).mkdir()
        for name in names:
            (stage / folder / name).write_bytes((home / name).read_bytes())


def build_host(bundle: Path, build: Path) -> Path:
    """Build the host of a bundle in the folder `build`; the program's path.

    BundleError with the compiler's first error, ToolchainError if there is no compiler.
    """
    build.mkdir(parents=True, exist_ok=True)
    program = build / RUNNER
    library = next((name for name in ("libOpenCL.so", "libOpenCL.so.1") if _links(name)), "libOpenCL.so")
    command = [find_compiler(), "-O2", "-std=c++17", str(bundle / "runner" / "main.cc"), "-o", str(program), f"-l:{library}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(
            f"the OpenCL host does not build: {first_error(done)}; install OpenCL's headers and library (Debian: ocl-icd-opencl-dev)"
        )
    return program


def _links(name: str) -> bool:
    """Whether the linker knows this library."""
    found = subprocess.run([find_compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=False).stdout.strip()
    return Path(found).is_absolute()
