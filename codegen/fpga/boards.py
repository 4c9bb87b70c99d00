"""Boards: what they have, which clock is taken for them, and how their memory behaves."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from billhook.ir.errors import OptionError

from .memory import Memory
from .synthesis import Family, Resources

ClockIs: TypeAlias = Literal["assumed", "placed and routed"]

# Shares of a part that a design may take, so that it can still be placed (the defaults of FINN's own resource check).
CEILING = {"dsp": 0.8, "bram": 0.8, "lut": 0.7, "flip_flops": 0.5}


@dataclass(frozen=True, slots=True)
class Board:
    """part: as its vendor calls it. resources: of the part (BRAM in blocks of 18 kbit). clock: assumed, in MHz. buses: bytes per beat
    that its memory port can have. memory: of the board in cycles of that clock, an assumption too.
    """

    name: str
    part: str
    family: Family
    resources: Resources
    clock: float
    buses: tuple[int, ...]
    memory: Memory

    @property
    def ceilings(self) -> Resources:
        """What a design may use. Small parts are packed by hand: their multipliers may all be used."""
        r = self.resources
        dsp = r.dsp if self.family == "ecp5" else int(r.dsp * CEILING["dsp"])
        return Resources(dsp, int(r.bram * CEILING["bram"]), int(r.lut * CEILING["lut"]), int(r.flip_flops * CEILING["flip_flops"]))


# Resources: FINN's table for the Xilinx parts, nextpnr's report for ECP5. Clocks and memories are assumptions; that of ULX3S is what a 4x4
# array was routed at.
BOARDS = (
    Board("zcu102", "xczu9eg-ffvb1156-2-e", "xcup", Resources(2520, 1824, 274000, 548000), 250.0, (16, 8), Memory(40, 12, shared=True)),
    Board("zcu104", "xczu7ev-ffvc1156-2-e", "xcup", Resources(1728, 610, 230000, 460000), 250.0, (16, 8), Memory(40, 12, shared=True)),
    Board("pynq-z2", "xc7z020clg400-1", "xc7", Resources(220, 280, 53200, 106400), 100.0, (8,), Memory(24, 8, shared=True)),
    Board(
        "ulx3s",
        "LFE5U-85F-6BG381C",
        "ecp5",
        Resources(156, 208, 83640, 83640),
        50.0,
        (4,),
        Memory(12, 4, shared=True, interval=2, page_bytes=1024, page_cycles=6, refresh_period=390, refresh_cycles=6),
    ),
)


def find_board(name: str) -> Board:
    """A board by name. Raises OptionError that lists the known ones."""
    for board in BOARDS:
        if board.name == name.lower():
            return board
    raise OptionError(f"board {name!r} is not known; choose one of {', '.join(b.name for b in BOARDS)}")
