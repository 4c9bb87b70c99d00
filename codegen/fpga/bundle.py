"""The bundle of a network on a board: Verilog, constraints, driver, program, weights, test bench, test vector."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from billhook.codegen.bundle_manifest import MANIFEST, digests
from billhook.ir.errors import BundleError

from .accelerator import Accelerator, to_json
from .boards import Board
from .generate import generate
from .memory import Memory
from .program import Program
from .search import Design
from .simulator import BENCH_FILES, DRIVER, DRIVER_FILES, OPTIONS, build_simulator

KIND = "fpga"
_TEMPLATES = Path(__file__).parent / "templates"
_BOARD_FILES = ("linux_uio.c",)


@dataclass(frozen=True, eq=False)
class FpgaBundle:
    """What goes into a bundle. expected: float32 outputs of the integer reference for the input; simulated: cycles, if it was."""

    name: str
    board: Board
    design: Design
    program: Program
    input: NDArray[np.float32]
    expected: NDArray[np.float32]
    simulated: int | None
    clock: float
    clock_is: str


@dataclass(frozen=True, slots=True)
class FpgaVerification:
    """What `verify_fpga` found: outputs of the test vector that differ, and simulated cycles."""

    bundle: Path
    files: int
    board: str
    wrong: int
    outputs: int
    cycles: int

    @property
    def ok(self) -> bool:
        return self.wrong == 0

    def __str__(self) -> str:
        verdict = "equal to the integer reference" if self.ok else f"{self.wrong} of {self.outputs} outputs DIFFER"
        return "\n".join(
            (
                f"{self.bundle}: {self.files} files as recorded, for an FPGA ({self.board})",
                f"test vector: {verdict} (simulated, not run on a board)",
                f"cycles: {self.cycles} (simulated)",
            )
        )


def fill_fpga_bundle(stage: Path, content: FpgaBundle) -> None:
    """Write a bundle into an empty folder that somebody else publishes."""
    a = content.program.accelerator
    for folder in ("rtl", "constraints", "driver", "program", "test", "bench"):
        (stage / folder).mkdir()
    for name, text in generate(a).items():
        (stage / "rtl" / name).write_text(text)
    for folder, names in (("driver", (*DRIVER_FILES, *_BOARD_FILES)), ("bench", BENCH_FILES)):
        for name in names:
            (stage / folder / name).write_text((DRIVER / name).read_text())
    (stage / "program" / "program.bin").write_bytes(content.program.words().astype("<u4").tobytes())
    (stage / "program" / "memory.bin").write_bytes(content.program.memory.tobytes())
    (stage / "test" / "input.bin").write_bytes(content.input.astype("<f4").tobytes())
    (stage / "test" / "expected.bin").write_bytes(content.expected.astype("<f4").tobytes())
    suffix = "lpf" if content.board.family == "ecp5" else "xdc"
    values = _values(content)
    for template, path in (
        ("README.md", "README.md"),
        (f"constraints.{suffix}", f"constraints/{content.board.name}.{suffix}"),
        ("Makefile", "bench/Makefile"),
    ):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
        )
        (stage / path).write_text(environment.get_template(f"{template}.j2").render(values))
    manifest = {**_manifest(content), "files": digests(stage)}
    (stage / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _values(content: FpgaBundle) -> dict[str, Any]:
    return {
        "name": content.name,
        "board": content.board,
        "accelerator": content.design.accelerator,
        "resources": content.design.resources,
        "cycles": content.design.cycles,
        "simulated": content.simulated,
        "clock": {"mhz": content.clock, "is": content.clock_is},
        "bus": content.design.accelerator.bus,
        "timing": " ".join(map(str, content.board.memory.arguments())),
        "options": " ".join(OPTIONS),
    }


def _manifest(content: FpgaBundle) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "target": {"kind": KIND, "board": content.board.name, "part": content.board.part},
        "accelerator": to_json(content.program.accelerator),
        "memory": asdict(content.board.memory),
        "resources": {**asdict(content.design.resources), "provenance": "static"},
        "cycles": {"modelled": content.design.cycles, "simulated": content.simulated},
        "clock": {"mhz": content.clock, "is": content.clock_is},
    }


def is_fpga_bundle(bundle: Path) -> bool:
    """Whether a folder holds a bundle for an FPGA."""
    return _read(bundle).get("target", {}).get("kind") == KIND if (bundle / MANIFEST).is_file() else False


def verify_fpga(bundle: Path, cache: Path) -> FpgaVerification:
    """Check the files, build the simulator from the bundle's own Verilog and driver, and run its test vector.

    Raises BundleError for missing or altered files, ToolchainError without Verilator.
    """
    manifest = _read(bundle)
    recorded: Mapping[str, str] = manifest.get("files", {})
    found = digests(bundle)
    for name, digest in recorded.items():
        if found.get(name) != digest:
            raise BundleError(f"{bundle / name}: {'was altered' if name in found else 'is missing'}; copy or save the bundle again")
    try:
        accelerator, memory = Accelerator(**manifest["accelerator"]), Memory(**manifest["memory"])
        sources = {Path(n).name: (bundle / n).read_text() for n in recorded if Path(n).suffix in {".v", ".c", ".h", ".cpp"}}
    except (KeyError, TypeError) as error:
        raise BundleError(f"{bundle / MANIFEST}: {error}; the bundle was altered, copy or save it again") from error
    for name in _BOARD_FILES:
        sources.pop(name, None)
    simulator = build_simulator(sources, accelerator, cache)
    inputs = np.frombuffer((bundle / "test" / "input.bin").read_bytes(), dtype="<f4").reshape(1, -1)
    expected = np.frombuffer((bundle / "test" / "expected.bin").read_bytes(), dtype="<f4")
    program = np.frombuffer((bundle / "program" / "program.bin").read_bytes(), dtype="<u4")
    image = np.frombuffer((bundle / "program" / "memory.bin").read_bytes(), dtype=np.uint8)
    simulated = simulator.run(program, image, inputs, memory)
    wrong = int((simulated.outputs[0] != expected).sum()) if simulated.outputs.size == expected.size else expected.size
    return FpgaVerification(bundle, len(recorded), manifest["target"]["board"], wrong, expected.size, simulated.cycles)


def _read(bundle: Path) -> dict[str, Any]:
    try:
        data: Any = json.loads((bundle / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{bundle / MANIFEST}: {error}; {bundle} is not a bundle, or not all of it") from error
    if not isinstance(data, dict):
        raise BundleError(f"{bundle / MANIFEST}: not an object; the bundle was altered, copy or save it again")
    return data  # pyright: ignore[reportUnknownVariableType]
