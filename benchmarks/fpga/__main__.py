"""python -m benchmarks.fpga [networks|grid|boards|resources|place|record ...]: run parts of the suite, and write the record."""

import sys
from pathlib import Path

from benchmarks.rows import Rows, write_record

from .boards import run_boards
from .grid import run_grid
from .networks import run_networks
from .resources import run_place, run_resources
from .summary import NOTES, summarise

KEYS = ("part", "network", "share", "aware", "board", "design", "family")
OUT = Path("out/fpga")


def main(parts: list[str]) -> None:
    """Run the named parts, or all of them."""
    rows = Rows(OUT / "rows.jsonl", KEYS)
    say = print
    for part in parts or ["networks", "grid", "boards", "resources", "place", "record"]:
        if part == "networks":
            run_networks(rows, OUT / "simulators", say)
        elif part == "grid":
            run_grid(rows, say)
        elif part == "boards":
            run_boards(rows, say)
        elif part == "resources":
            run_resources(rows, say)
        elif part == "place":
            run_place(rows, say)
        elif part == "record":
            say(write_record("fpga", summarise(rows.read()), rows.read(), notes=NOTES))
        else:
            raise SystemExit(f"no part is called {part}; choose networks, grid, boards, resources, place or record")


main(sys.argv[1:])
