"""From CUDA source to a fat binary for several architectures with nvcc. Needs no GPU."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from billhook.ir.errors import MeasureError, ToolchainError

ARCHITECTURES = ("sm_80", "sm_90")
_SECONDS = 900.0
_KERNEL = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_USAGE = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def find_nvcc(path: str | None = None) -> str:
    """Path of nvcc (on `path`, by default the process's PATH)."""
    found = shutil.which("nvcc", path=path)
    if found is None:
        raise ToolchainError("nvcc not found; install the CUDA toolkit (12 or newer), or add its bin folder to PATH")
    return found


Usage: TypeAlias = dict[str, dict[str, int]]  # per "symbol@architecture": registers, spilled_bytes


def compile_fatbin(source: str, architectures: Sequence[str] = ARCHITECTURES, nvcc: str | None = None) -> tuple[bytes, Usage]:
    """Machine code for all architectures in one image, and per "symbol@architecture" its registers and spilled bytes.

    MeasureError with the compiler's first complaint if the source is refused or takes more than 15 minutes.
    """
    compiler = nvcc or find_nvcc()
    code = [f"-gencode=arch=compute_{a[3:]},code={a}" for a in architectures]
    with tempfile.TemporaryDirectory() as folder:
        text, image = Path(folder) / "kernels.cu", Path(folder) / "kernels.fatbin"
        text.write_text(source, encoding="utf-8")
        command = [compiler, "-fatbin", "-O3", "-Xptxas", "-v", *code, "-o", str(image), str(text)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"nvcc took more than {_SECONDS:g} s; build fewer kernels at once") from error
        if done.returncode:
            raise MeasureError(f"nvcc refuses the generated source: {_complaint(done.stderr)}")
        return image.read_bytes(), _usage(done.stderr)


def _complaint(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    return lines[0] if lines else "no message"


def _usage(log: str) -> Usage:
    """What ptxas reports for every kernel and architecture."""
    found: Usage = {}
    current: dict[str, int] = {}
    for line in log.splitlines():
        if kernel := _KERNEL.search(line):
            current = found.setdefault(f"{kernel[1]}@{kernel[2]}", {})
        elif spills := _SPILLS.search(line):
            current["spilled_bytes"] = int(spills[2]) + int(spills[3])
        elif usage := _USAGE.search(line):
            current["registers"] = int(usage[1])
    return found
