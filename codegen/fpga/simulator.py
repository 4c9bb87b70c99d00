"""The simulator of one accelerator shape: its Verilog through Verilator, with driver and test bench, built once and kept."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from billhook.ir.errors import MeasureError, ToolchainError

from .accelerator import Accelerator
from .generate import TOP, generate
from .memory import Memory

DRIVER = Path(__file__).parent / "driver"
DRIVER_FILES = ("billhook_fpga.h", "billhook_fpga.c", "host_steps.h", "host_steps.c")
BENCH_FILES = ("memory.h", "simulator.cpp")
OPTIONS = ("--cc", "--exe", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-WIDTH")


@dataclass(frozen=True, slots=True)
class StepCycles:
    """Cycles of one step of the program: kind 0 is the accelerator, others are the host's and take none."""

    index: int
    kind: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """outputs: float32 [images, elements]. memory: all bytes after the last image. steps: of all images, one after the other."""

    outputs: NDArray[np.float32]
    memory: NDArray[np.uint8]
    steps: tuple[StepCycles, ...]

    @property
    def cycles(self) -> int:
        return sum(s.cycles for s in self.steps)


@dataclass(frozen=True, slots=True)
class Simulator:
    """A built simulator. Cycles are simulated cycles, not time on hardware."""

    binary: Path
    accelerator: Accelerator

    def run(self, program: NDArray[np.uint32], memory: NDArray[np.uint8], inputs: NDArray[np.float32], timing: Memory) -> Simulated:
        """Run a program for each image [images, elements]. Raises MeasureError where the driver or the accelerator fails."""
        with tempfile.TemporaryDirectory() as folder:
            names = [Path(folder) / n for n in ("program", "memory", "input", "output", "after")]
            for name, data in zip(names, (program, memory, np.asarray(inputs, dtype=np.float32)), strict=False):
                name.write_bytes(data.tobytes())
            command = [str(self.binary), *map(str, names), str(self.accelerator.bus), *map(str, timing.arguments())]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MeasureError(f"the simulated accelerator {self.accelerator} fails: {done.stderr.strip() or done.returncode}")
            outputs = np.frombuffer(names[3].read_bytes(), dtype=np.float32).reshape(len(inputs), -1)
            after = np.frombuffer(names[4].read_bytes(), dtype=np.uint8)
            steps = tuple(StepCycles(*map(int, line.split())) for line in done.stdout.splitlines())
            return Simulated(outputs, after, steps)


def simulator(accelerator: Accelerator, cache: Path) -> Simulator:
    """The simulator of this shape, from the cache folder, or built there (10 s to minutes for large arrays).

    Raises ToolchainError where Verilator is missing or the build fails.
    """
    return build_simulator(simulator_sources(accelerator), accelerator, cache)


def build_simulator(sources: Mapping[str, str], accelerator: Accelerator, cache: Path) -> Simulator:
    """The simulator made of these files, built once for equal files; raises like `simulator`."""
    binary = shutil.which("verilator")
    if binary is None:
        raise ToolchainError("verilator is not installed, which simulates the accelerator; run tools/install-debian.sh")
    digest = hashlib.sha256("\0".join(f"{n}\0{t}" for n, t in sorted(sources.items())).encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / f"{accelerator.rows}x{accelerator.columns}-{digest}"
    with _locked(cache / f"{final.name}.lock"):
        if not final.exists():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                _build(binary, Path(folder), sources).rename(final)
    return Simulator(final, accelerator)


def simulator_sources(accelerator: Accelerator) -> dict[str, str]:
    """All files that a simulator is built from, by name."""
    files = dict(generate(accelerator))
    files.update({name: (DRIVER / name).read_text() for name in (*DRIVER_FILES, *BENCH_FILES)})
    return files


def _build(verilator: str, folder: Path, sources: Mapping[str, str]) -> Path:
    for name, text in sources.items():
        (folder / name).write_text(text)
    code = sorted(n for n in sources if n.endswith((".v", ".c", ".cpp")))
    flags = ["-CFLAGS", "-O2 -I..", "--top-module", TOP, "--Mdir", "obj", "-o", "simulator"]
    for command in (
        [verilator, *OPTIONS, *flags, *code],
        ["make", "-C", "obj", "-j", "1", "-f", f"V{TOP}.mk", "OPT_FAST=-O2", "simulator"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            text = done.stderr.strip() or done.stdout.strip()
            raise ToolchainError(f"{Path(command[0]).name} fails on the accelerator: {text[-800:]}")
    return folder / "obj" / "simulator"


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """One build at a time per shape, whichever process asks."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
