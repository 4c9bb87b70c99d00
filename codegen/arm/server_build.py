"""Building the RPC server for an arm64 device: a folder with the program and its two libraries, to be copied there."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import tvm_ffi.libinfo

from billhook.codegen.toolchain import first_error
from billhook.ir.errors import BundleError

from .toolchain import arm_runtime, cross_compiler

SERVER = "rpc_server"


def build_server(folder: Path, compiler: str | None = None, runtime: Sequence[Path] = ()) -> Path:
    """Build the server into `folder`; the program's path. It finds its libraries beside itself.

    compiler, runtime: of another architecture than arm64 Linux. ToolchainError without a cross compiler or runtime, BundleError
    with the compiler's first error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libraries = [folder / path.name for path in runtime or arm_runtime()]
    for source, goal in zip(runtime or arm_runtime(), libraries, strict=True):
        shutil.copyfile(source, goal)
    source = resources.files("billhook.codegen.arm") / "server" / f"{SERVER}.cc"
    include = tvm_ffi.libinfo.find_include_path()
    flags = ["-O2", "-DNDEBUG", "-std=c++17", "-isystem", str(include), "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN"]
    command = [compiler or cross_compiler(), str(source), "-o", str(folder / SERVER), *flags, *map(str, libraries), "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"the RPC server does not build: {first_error(done)}; check the installed apache-tvm-ffi")
    return folder / SERVER
