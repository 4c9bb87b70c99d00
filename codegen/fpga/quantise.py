"""Post-training quantisation of one layer: symmetric int8, weights by output channel, activations by map (Jacob et al. 2018, section 2)."""

from dataclasses import dataclass
from math import floor, inf, log2

import numpy as np
from numpy.typing import NDArray

from billhook.ir.errors import DataError

from .layer import Int8
from .schedule import Requantisation

Floats = NDArray[np.float64]
_MULTIPLIER_BITS = 16
_MOST_SHIFT = 46


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """One int8 step of what a layer reads and makes. residual: 0 without one."""

    source: float
    output: float
    residual: float = 0.0


def quantise_weights(weight: Floats) -> tuple[Int8, Floats]:
    """int8 weights [O, ...] and the step of each output channel [O]."""
    if not np.isfinite(weight).all():
        raise DataError("a weight is not finite; clean the weights before quantising")
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    step = np.where(largest > 0, largest, 1.0) / 127
    return quantise(weight, step.reshape(-1, *[1] * (weight.ndim - 1))), step


def quantise(values: Floats, step: float | Floats) -> Int8:
    """Nearest int8 in units of the step, clipped."""
    return np.clip(np.rint(values / step), -128, 127).astype(np.int8)


def requantisation(
    steps: Floats, bias: Floats, scales: Scales, low: float = -inf, high: float = inf
) -> tuple[NDArray[np.int32], NDArray[np.uint16], Requantisation]:
    """Bias, multipliers and the rest of a store's numbers. steps: of the weights [O]; bias [O], low, high: real values.

    The multipliers of all channels share one shift, so that the largest uses its 16 bits.
    """
    accumulator = scales.source * steps
    ratio = accumulator / scales.output
    shift = min(max(_MULTIPLIER_BITS - 1 - floor(log2(ratio.max())), 1), _MOST_SHIFT)
    multiplier = np.minimum(np.rint(ratio * 2.0**shift), 2**_MULTIPLIER_BITS - 1)
    offset = np.rint(bias / accumulator)
    if np.abs(offset).max(initial=0) >= 2**31:
        raise DataError("a bias is too large for its channel's weights in int8; scale the network's layers more evenly")
    residual, residual_shift = 0, 0
    if scales.residual:
        wanted = scales.residual / scales.output * 2.0**shift
        residual_shift = min(max(floor(log2(wanted)) - _MULTIPLIER_BITS + 1, 0), 31)
        residual = min(max(round(wanted / 2**residual_shift), 1), 2**_MULTIPLIER_BITS - 1)
    numbers = Requantisation(shift, _bound(low, scales.output, -128), _bound(high, scales.output, 127), residual, residual_shift)
    return offset.astype(np.int32), multiplier.astype(np.uint16), numbers


def _bound(value: float, step: float, default: int) -> int:
    return default if abs(value) == inf else int(np.clip(np.rint(value / step), -128, 127))


def fixed_point(value: float, bits: int = 15) -> tuple[int, int]:
    """A positive number as (multiplier, shift): value = multiplier / 2^shift, the multiplier with this many bits."""
    shift = min(max(bits - 1 - floor(log2(value)), 1), _MOST_SHIFT)
    return max(round(value * 2**shift), 1), shift
