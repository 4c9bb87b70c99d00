"""What making and running arm64 code on another machine needs: a cross compiler, an emulator, TVM's runtime for arm64."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from billhook.ir.errors import ToolchainError

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SYSROOT = Path("/usr/aarch64-linux-gnu")  # where Debian's cross compiler has the C and C++ libraries
_LIBRARIES = {"apache-tvm": "tvm/lib/libtvm_runtime.so", "apache-tvm-ffi": "tvm_ffi/lib/libtvm_ffi.so"}
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_24_aarch64")


def cross_compiler() -> str:
    """Path of the arm64 C++ cross compiler. ToolchainError if it is missing."""
    return _tool(COMPILER, "g++-aarch64-linux-gnu", "makes arm64 libraries and programs")


def emulator() -> str:
    """Path of qemu for arm64 user programs. ToolchainError if it is missing."""
    return _tool(EMULATOR, "qemu-user", "runs arm64 programs here")


def _tool(name: str, package: str, purpose: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ToolchainError(f"{name}, which {purpose}, is not installed; install {package} (tools/install-debian.sh)")
    return found


def default_cache() -> Path:
    """Where the arm64 runtime is kept: beside the measurements of the user."""
    return Path.home() / ".cache" / "billhook" / "arm64"


def arm_runtime(cache: Path | None = None) -> tuple[Path, ...]:
    """TVM's two runtime libraries for arm64 Linux, of exactly the installed versions, from their wheels.

    Downloaded with pip when first needed. ToolchainError when that fails (offline) and they are not in the cache.
    """
    home = (cache or default_cache()) / "-".join(version(package) for package in _LIBRARIES)
    wanted = tuple(home / Path(inside).name for inside in _LIBRARIES.values())
    if not all(path.is_file() for path in wanted):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            for package, inside in _LIBRARIES.items():
                _extract(_download(package, Path(folder)), inside, home)
    return wanted


def _download(package: str, folder: Path) -> Path:
    """The package's arm64 wheel of the installed version."""
    wheels = folder / package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    wanted = f"{package}=={version(package)}"
    done = subprocess.run([*command, wanted], capture_output=True, text=True, check=False)
    found = next(iter(wheels.glob("*.whl")), None) if wheels.is_dir() else None
    if done.returncode or found is None:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = lines[-1].removeprefix("ERROR: ") if lines else f"pip ends with status {done.returncode}"
        raise ToolchainError(f"the arm64 wheel of {wanted} cannot be downloaded ({why}); go online once, it is then kept")
    return found


def _extract(wheel: Path, inside: str, goal: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(inside)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ToolchainError(f"{wheel.name} holds no {inside}; its layout has changed, use the pinned version of TVM") from error
    beside = goal / f".{Path(inside).name}.partial"
    beside.write_bytes(content)
    beside.replace(goal / Path(inside).name)
