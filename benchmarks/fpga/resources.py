"""The resource model against yosys: every design of a list, its counts beside the estimate."""

from collections.abc import Callable
from dataclasses import asdict

from benchmarks.rows import Row, Rows
from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.place import place_and_route
from billhook.codegen.fpga.synthesis import Family, synthesise
from billhook.ir.errors import ToolchainError

FAMILIES: tuple[Family, ...] = ("ecp5", "xc7", "xcup")
DESIGNS = (  # one with the searched depths of ULX3S, the others with the default ones, so that each feature of the model varies by itself
    Accelerator(4, 4, 4),
    Accelerator(8, 4, 4),
    Accelerator(8, 8, 4),
    Accelerator(8, 8, 8),
    Accelerator(16, 8, 4, 2048, 2048, 512, 1024),
    Accelerator(16, 8, 8),
    Accelerator(16, 4, 4),
    Accelerator(16, 16, 8),
    Accelerator(16, 16, 16),
)
PLACED = (Accelerator(4, 4, 4), Accelerator(16, 8, 4, 2048, 2048, 512, 1024))  # a small one, and what the search finds for ULX3S
LIMIT = 1200  # seconds of processor time for one


def run_resources(rows: Rows, say: Callable[[str], None]) -> None:
    """A row for each design and family that has none yet: synthesis takes minutes."""
    for accelerator in DESIGNS:
        for family in FAMILIES:
            key = {"part": "resources", "design": str(accelerator), "family": family}
            if rows.find(**key) is None:
                rows.add({**key, "accelerator": asdict(accelerator), **asdict(synthesise(accelerator, family))})
                say(f"{accelerator} {family}: {rows.find(**key)}")


def run_place(rows: Rows, say: Callable[[str], None]) -> None:
    """A row for each design that is to be placed and routed on ECP5 and was not yet; where it does not end, with the reason."""
    for accelerator in PLACED:
        found = rows.find(part="place", design=str(accelerator))
        if found is None or found["mhz"] is None:
            rows.add(row := placed_row(accelerator))
            say(f"{accelerator}: {row['mhz'] or row['why']}")


def placed_row(accelerator: Accelerator) -> Row:
    """The routed clock of a design in MHz, or None and why."""
    row: Row = {"part": "place", "design": str(accelerator), "accelerator": asdict(accelerator)}
    try:
        placed = place_and_route(accelerator, limit=LIMIT)
    except ToolchainError as error:
        return {**row, "mhz": None, "why": str(error)}
    return {**row, "mhz": placed.mhz, "seed": placed.seed, "tools": placed.tools, **asdict(placed.resources)}
