"""Resource model: multipliers and memory blocks are counted, tables and flip-flops fitted to yosys (docs/fpga.md states the errors)."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .accelerator import PARAMETER_BEATS, Accelerator
from .synthesis import Family, Resources

_WIDTHS = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # of a block of 18 kbit: words, bits that they have
_LANE_MULTIPLIERS = 3  # of the store engine, per byte of a beat: 32 x 17 bits take two, the residual's 8 x 17 one


def estimate(accelerator: Accelerator, family: Family) -> Resources:
    """What synthesis would count, without running it."""
    tables, flip_flops = (float(c @ features(accelerator)) for c in COEFFICIENTS[family])
    return Resources(multipliers(accelerator), memory_blocks(accelerator), max(round(tables), 0), max(round(flip_flops), 0))


def multipliers(accelerator: Accelerator) -> int:
    """One for each product of the array, and those of the store engine."""
    return accelerator.rows * accelerator.columns + _LANE_MULTIPLIERS * accelerator.bus


def memories(accelerator: Accelerator) -> tuple[tuple[int, int], ...]:
    """(words, bits) of every memory of the design."""
    a = accelerator
    return (
        *((a.slots * 8, 32),) * 3,
        *((a.input_depth, a.columns * 8),) * a.groups,
        (a.weight_depth, a.rows * 8),
        *((a.accumulator_depth, a.columns * 32),) * a.buffers,
        (a.residual_depth, a.bus * 8),
        (a.parameter_depth, a.bus * 8 * PARAMETER_BEATS),
    )


def memory_blocks(accelerator: Accelerator) -> int:
    """Blocks of 18 kbit: for every memory the best of the shapes that a block can have."""
    return sum(min(-(-bits // w) * -(-words // d) for d, w in _WIDTHS) for words, bits in memories(accelerator))


def features(accelerator: Accelerator) -> NDArray[np.float64]:
    """What tables and flip-flops grow with: nothing, products, columns, bytes of a beat."""
    a = accelerator
    return np.array([1.0, a.rows * a.columns, a.columns, a.bus])


def _coefficients(tables: tuple[float, ...], flip_flops: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(tables), np.array(flip_flops)


# For `features`. The shares of products, columns and lanes are counted from the Verilog (adders, comparators and shifters by their bits);
# the rest is set so that 8x8 with a bus of 8 equals yosys 0.23 on xc7 and xcup. UltraScale+ differs by the product: its register and sum
# stay outside the multiplier. ECP5 is not yet compared with synthesis.
COEFFICIENTS: Mapping[Family, tuple[NDArray[np.float64], NDArray[np.float64]]] = MappingProxyType(
    {
        "xc7": _coefficients((900.0, 15.0, 115.0, 499.0), (1100.0, 8.0, 60.0, 157.0)),
        "xcup": _coefficients((900.0, 68.0, 115.0, 499.0), (1100.0, 50.0, 60.0, 157.0)),
        "ecp5": _coefficients((1500.0, 40.0, 230.0, 900.0), (1100.0, 50.0, 60.0, 157.0)),
    }
)
