"""Resource model: multipliers and memory blocks are counted, tables and flip-flops fitted to yosys (docs/fpga.md states the errors)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .accelerator import PARAMETER_BEATS, Accelerator
from .synthesis import Family, Resources

Coefficients: TypeAlias = NDArray[np.float64]

_TRUST = 0.1  # in the coefficients that are counted from the Verilog
_WIDTHS = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))  # of a block of 18 kbit: words, bits that they have
_LANE_MULTIPLIERS = 3  # of the store engine, per byte of a beat: 32 x 17 bits take two, the residual's 8 x 17 one


def _coefficients(tables: tuple[float, ...], flip_flops: tuple[float, ...]) -> tuple[Coefficients, Coefficients]:
    return np.array(tables), np.array(flip_flops)


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
    """Blocks of 18 kbit of all memories."""
    return sum(blocks(words, bits) for words, bits in memories(accelerator))


def blocks(words: int, bits: int) -> int:
    """Blocks of 18 kbit of one memory: the best of the shapes that a block can have."""
    return min(-(-bits // w) * -(-words // d) for d, w in _WIDTHS)


def features(accelerator: Accelerator) -> Coefficients:
    """What tables and flip-flops grow with: nothing, products, columns, bytes of a beat."""
    a = accelerator
    return np.array([1.0, a.rows * a.columns, a.columns, a.bus])


def fit(designs: Sequence[Accelerator], counts: Sequence[int], expected: Coefficients) -> Coefficients:
    """What each feature takes, so that the relative errors over synthesised designs are least squares.

    expected: what the Verilog says. There are few designs, so a coefficient that doubles counts as much as a design that is 10% off.
    """
    rows = np.array([features(d) / c for d, c in zip(designs, counts, strict=True)])
    pull = _TRUST * np.diag(1 / expected)
    goals = np.concatenate([np.ones(len(rows)), _TRUST * np.ones(len(expected))])
    return np.asarray(np.linalg.lstsq(np.vstack([rows, pull]), goals)[0], dtype=np.float64)


# For `features`, of tables and of flip-flops: counted from the Verilog (adders, comparators and shifters by their bits).
# UltraScale+ and ECP5 keep the product's register and sum outside of the multiplier.
COUNTED: Mapping[Family, tuple[Coefficients, Coefficients]] = MappingProxyType(
    {
        "xc7": _coefficients((900.0, 15.0, 115.0, 499.0), (1100.0, 8.0, 60.0, 157.0)),
        "xcup": _coefficients((900.0, 50.0, 115.0, 499.0), (1100.0, 36.5, 51.0, 157.0)),
        "ecp5": _coefficients((1500.0, 30.0, 230.0, 900.0), (1100.0, 36.5, 51.0, 157.0)),
    }
)

# `fit` to yosys 0.23 over the designs of the record under benchmarks/results/fpga, rounded.
COEFFICIENTS: Mapping[Family, tuple[Coefficients, Coefficients]] = MappingProxyType(
    {
        "xc7": _coefficients((941.7, 10.8, 84.7, 556.8), (1279.5, 7.6, 57.9, 144.1)),
        "xcup": _coefficients((1143.3, 39.6, 125.7, 699.9), (1434.3, 41.1, 54.4, 188.9)),
        "ecp5": _coefficients((1850.7, 32.6, 288.8, 1405.0), (1740.5, 37.5, 55.3, 209.2)),
    }
)
