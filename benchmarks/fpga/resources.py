"""The resource model against yosys: every design of a list, its counts beside the estimate."""

from collections.abc import Callable
from dataclasses import asdict

from benchmarks.rows import Rows
from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.place import place_and_route
from billhook.codegen.fpga.synthesis import Family, synthesise

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
PLACED = Accelerator(16, 8, 4, 2048, 2048, 512, 1024)  # what the search finds for ULX3S


def run_resources(rows: Rows, say: Callable[[str], None]) -> None:
    """A row for each design and family that has none yet: synthesis takes minutes."""
    for accelerator in DESIGNS:
        for family in FAMILIES:
            key = {"part": "resources", "design": str(accelerator), "family": family}
            if rows.find(**key) is None:
                rows.add({**key, "accelerator": asdict(accelerator), **asdict(synthesise(accelerator, family))})
                say(f"{accelerator} {family}: {rows.find(**key)}")


def run_place(rows: Rows, say: Callable[[str], None]) -> None:
    """A row for the design that is placed and routed on ECP5."""
    placed = place_and_route(PLACED)
    rows.add(
        {
            "part": "place",
            "design": str(PLACED),
            "accelerator": asdict(PLACED),
            "mhz": placed.mhz,
            "seed": placed.seed,
            **asdict(placed.resources),
        }
    )
    say(f"{PLACED}: {placed}")
