"""The accelerator's shape: what its generator, its lowering, its cycle model and its resource model all read."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from billhook.ir.errors import OptionError

MAX_BEATS = 65535  # of one burst: 16 bits in an instruction
PARAMETER_BEATS = 6  # a word of the parameter buffer: for each lane of a beat a bias (4 bytes) and a multiplier (2 bytes)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An int8 accelerator with an array of `rows` input channels by `columns` output channels.

    bus: bytes per beat of the memory port, and so channels that the store engine requantises per cycle. Depths are in words
    over all buffers: input and weight words hold `rows` bytes, an accumulator word `columns` int32 (per bank), residual
    words `bus` bytes. buffers: 2 for double buffering, so that load, execute and store overlap; 1 without.
    slots: instructions that each engine's memory holds.
    """

    rows: int
    columns: int
    bus: int = 8
    input_depth: int = 2048
    weight_depth: int = 2048
    accumulator_depth: int = 256
    residual_depth: int = 1024
    buffers: int = 2
    slots: int = 256

    def __post_init__(self) -> None:
        def need(holds: bool, what: str) -> None:
            if not holds:
                raise OptionError(f"accelerator {self.rows}x{self.columns}, bus {self.bus}: {what}")

        need(self.columns >= 4 and self.bus >= 1, "needs at least 4 columns and a bus of 1 byte; choose a larger array")
        need(self.columns % self.bus == 0, "the columns must be a multiple of the bus; choose a narrower bus or another array")
        need(self.rows % self.columns == 0, "the rows must be a multiple of the columns; choose rows that are")
        need(self.buffers in {1, 2}, f"{self.buffers} buffers; choose 1 or 2")
        for name in ("input_depth", "weight_depth", "accumulator_depth", "residual_depth", "slots"):
            depth = getattr(self, name)
            need(16 <= depth <= 65536 and depth & (depth - 1) == 0, f"{name} {depth}; choose a power of two from 16 to 65536")
        need(self.slots <= 1024, f"{self.slots} slots; choose at most 1024")

    @property
    def groups(self) -> int:
        """Lane groups of an input word: blocks of `columns` channels side by side."""
        return self.rows // self.columns

    @property
    def parts(self) -> int:
        """Beats of one pixel of an output block."""
        return self.columns // self.bus

    @property
    def parameter_depth(self) -> int:
        """Words of the parameter buffer: one block per buffer, a power of two and at least 16."""
        return max(16, 1 << (self.parts * self.buffers - 1).bit_length())

    def half(self, depth: int) -> int:
        """Words of one buffer of a memory with this many."""
        return depth // self.buffers

    @property
    def identification(self) -> str:
        """Eight hexadecimal digits that a driver compares: they follow from the shape."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:8]

    def __str__(self) -> str:
        depths = f"in {self.input_depth}, w {self.weight_depth}, acc {self.accumulator_depth}, res {self.residual_depth}"
        return f"{self.rows}x{self.columns} bus {self.bus} ({depths}, {'double' if self.buffers == 2 else 'single'} buffers)"


def to_json(accelerator: Accelerator) -> dict[str, Any]:
    """As plain data; `Accelerator(**data)` reads it back."""
    return asdict(accelerator)
