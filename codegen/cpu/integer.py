"""Products of bytes: what a kernel knows of its weight besides the integers, and how its sums become real numbers.

Data on a grid is step * (byte - zero), a weight is its channel's step * integer, so a sum of products of real numbers is
data step * weight step * (sum(byte * integer) - zero * sum(integer)). The sums of a weight's integers, tap by tap because padding leaves
taps out, and its steps lie behind the integers in one buffer; accumulators start from the correction.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.grids import MOST, QUINT8, Integers
from billhook.ir.workload import Workload

from .gridded import OnGrid
from .vector import accumulate, bind, load, loop, register

_MOST_PRODUCTS = 2**31 // (255 * MOST) // 2  # half of the range is for the correction


@dataclass(frozen=True, slots=True)
class Tables:
    """Sums [taps, channels] and steps [channels] of a packed weight, which start at element `first` of its buffer of 32-bit words."""

    weight: Any
    data: OnGrid
    first: int
    channels: int
    taps: int
    lanes: int

    def correction(self, runs: Iterable[tuple[tuple[Any, Any], Iterable[tuple[int, int]]]], width: int, channel: Any) -> Any:
        """What the sums of `lanes` channels start from: minus the zero point times their weights' sums over the taps that are used.

        runs: (rows from, to), then the column taps (from, to) that are used there. width: taps of a row.
        """
        total = register(self.lanes, dtype="int32")
        for rows, columns in runs:
            with loop(*rows) as r:
                for start, stop in columns:
                    with loop(start, stop) as q:
                        place = self.first + (r * width + q) * self.channels + channel
                        accumulate(total, load(self.weight, place, self.lanes), self.lanes)
        return bind(load(total, 0, self.lanes) * T.broadcast(T.int32(0) - self.data.offset, self.lanes))

    def scale(self, channel: Any) -> Any:
        """What one unit of the sums of `lanes` channels stands for."""
        bits = load(self.weight, self.first + self.taps * self.channels + channel, self.lanes)
        return bind(T.reinterpret(f"float32x{self.lanes}", bits) * T.broadcast(self.data.step, self.lanes))

    def real(self, total: Any, scale: Any, bias: Any | None) -> Any:
        """Sums as real numbers."""
        value = T.cast(total, f"float32x{self.lanes}") * scale
        return bind(value if bias is None else value + bias)


def to_real(tables: Tables | None, channel: Any, bias: Callable[[], Any | None]) -> Callable[[Any], Any]:
    """From sums of `lanes` channels to the anchor's result. No tables: sums of real numbers, which started from the bias."""
    if tables is None:
        return lambda total: total
    scale, start = tables.scale(channel), bias()
    return lambda total: tables.real(total, scale, start)


def table_elements(channels: int, taps: int) -> int:
    """32-bit words of the tables."""
    return (taps + 1) * channels


def pack_tables(integers: Integers, steps: np.ndarray, channels: int) -> np.ndarray:
    """The tables of a weight [O, I, taps...] or [O, I], padded to `channels`, as 32-bit words."""
    sums = integers.astype(np.int32).sum(1).reshape(len(integers), -1)
    full = np.zeros((sums.shape[1] + 1, channels), np.int32)
    full[:-1, : len(sums)] = sums.T
    full[-1, : len(sums)] = steps.astype(np.float32).view(np.int32)
    return full.reshape(-1)


def multiplies_bytes(workload: Workload, products: int) -> bool:
    """Whether the anchor's data is on a grid, and sums of so many products cannot leave an int32."""
    return workload.inputs[0].dtype == QUINT8 and products <= _MOST_PRODUCTS
