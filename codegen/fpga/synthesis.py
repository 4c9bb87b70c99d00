"""Resources as synthesis counts them: yosys for Xilinx and ECP5 parts. Counts before placement, never compared with a vendor's tool."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from billhook.ir.errors import ToolchainError

from .accelerator import Accelerator
from .generate import TOP, generate

Family: TypeAlias = Literal["xc7", "xcup", "ecp5"]

_SYNTH = {
    "xc7": f"synth_xilinx -family xc7 -top {TOP} -noiopad -flatten",
    "xcup": f"synth_xilinx -family xcup -top {TOP} -noiopad -flatten",
    "ecp5": f"synth_ecp5 -top {TOP}",
}
_DSP = ("DSP48E1", "DSP48E2", "MULT18X18D")
_LUT = ("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6")
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF")
_HALF_BLOCKS = ("RAMB18E1", "RAMB18E2", "DP16KD")
_WHOLE_BLOCKS = ("RAMB36E1", "RAMB36E2")
_WIDE = {"TRELLIS_DPR16X4": 6, "CCU2C": 2, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X1D": 2, "RAM64X1D": 2}  # in LUTs


@dataclass(frozen=True, slots=True)
class Resources:
    """dsp: multiplier blocks. bram: memory blocks of 18 kbit. lut: lookup tables. flip_flops. Static figures."""

    dsp: int
    bram: int
    lut: int
    flip_flops: int


def synthesise(accelerator: Accelerator, family: Family) -> Resources:
    """Synthesise the generated Verilog and count cells. Raises ToolchainError where yosys is missing or fails."""
    with tempfile.TemporaryDirectory() as folder:
        write_verilog(accelerator, Path(folder))
        return count(run_yosys(Path(folder), _SYNTH[family]))


def write_verilog(accelerator: Accelerator, folder: Path) -> None:
    """The accelerator's Verilog as files in a folder."""
    for name, text in generate(accelerator).items():
        (folder / name).write_text(text)


def run_yosys(folder: Path, command: str) -> Mapping[str, int]:
    """Cells of the flattened top by type after a synthesis command on the folder's Verilog."""
    binary = shutil.which("yosys")
    if binary is None:
        raise ToolchainError("yosys is not installed, which counts the resources of the accelerator; run tools/install-debian.sh")
    files = " ".join(sorted(p.name for p in folder.glob("*.v")))
    script = f"read_verilog {files}; {command}; tee -o stat.json stat -json"
    done = subprocess.run([binary, "-q", "-p", script], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"yosys fails on the accelerator: {done.stderr.strip()[-400:]}")
    return json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]


def count(cells: Mapping[str, int]) -> Resources:
    """Resources from cell counts; carry chains and memories made of tables count as the tables that they take."""

    def total(names: tuple[str, ...]) -> int:
        return sum(cells.get(n, 0) for n in names)

    wide = sum(cells.get(n, 0) * tables for n, tables in _WIDE.items())
    return Resources(total(_DSP), total(_HALF_BLOCKS) + 2 * total(_WHOLE_BLOCKS), total(_LUT) + wide, total(_FLIP_FLOPS))
