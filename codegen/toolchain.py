"""What code generation needs from the machine, checked once with one clear line each."""

import shutil
import subprocess
from importlib import metadata

from billhook.ir.errors import ToolchainError

_TVM = "0.27."
_FFI = "0.1.14."  # 0.1.15 crashes in every serialisation of IR, hence in all tuning
_COMPILERS = ("c++", "g++", "clang++", "cc", "gcc", "clang")


def check_toolchain() -> None:
    """Raise ToolchainError if TVM or its foreign-function library is missing or has a version that does not work."""
    for package, wanted in (("apache-tvm", _TVM), ("apache-tvm-ffi", _FFI)):
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise ToolchainError(f"{package} is not installed; install billhook[tvm]") from error
        if not found.startswith(wanted):
            raise ToolchainError(f"{package} {found} does not work here; install {package}=={wanted}* (pip install 'billhook[tvm]')")


def find_compiler(path: str | None = None) -> str:
    """Path of a C++ or C compiler driver (on `path`, by default the process's PATH), which links the exported library."""
    for name in _COMPILERS:
        found = shutil.which(name, path=path)
        if found:
            return found
    raise ToolchainError("no C compiler found; install g++ or clang (Debian: apt-get install g++)")


def first_error(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool that failed says first of an error, else its exit status."""
    return next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}").strip()
