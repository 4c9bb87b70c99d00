"""What a dataflow design in hls4ml's manner would take for the same network: a formula, and no output of its tools.

hls4ml gives every layer logic of its own, which shares each multiplier among `reuse factor` weights. Its resource figures come from the
vendor's synthesis, which is not here, and its own estimators need TensorFlow. So this counts what its scheme implies: a layer starts an
output position every `reuse` cycles, and all layers work at once, so that the slowest one sets the interval between pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from billhook.codegen.fpga.resources import blocks
from billhook.codegen.fpga.shape import LayerShape

_BITS = 8


@dataclass(frozen=True, slots=True)
class Dataflow:
    """interval: cycles from one picture to the next, at best. multipliers: one for each product that is made in a cycle; DSP blocks
    where products take one each. bram: blocks of 18 kbit for the weights. reuse: factor of each layer.
    """

    interval: int
    multipliers: int
    bram: int
    reuse: tuple[int, ...]


def dataflow(layers: Sequence[LayerShape], multipliers: int) -> Dataflow | None:
    """The design with the shortest interval within so many multipliers; None where even one for each layer is too many."""
    filters = [s for s in layers if not s.maximum and s.groups == 1]
    if len(filters) > multipliers:
        return None
    low, high = 1, max(s.macs for s in filters)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _multipliers(filters, middle) <= multipliers else (middle + 1, high)
    reuse = tuple(_reuse(s, low) for s in filters)
    memory = sum(blocks(r, _BITS * -(-_products(s) // r)) for s, r in zip(filters, reuse, strict=True))
    return Dataflow(low, _multipliers(filters, low), memory, reuse)


def _products(shape: LayerShape) -> int:
    """Multiply-adds for one output position."""
    return shape.macs // (shape.output.height * shape.output.width)


def _reuse(shape: LayerShape, interval: int) -> int:
    """The largest reuse factor with which a layer keeps the interval."""
    return max(1, min(_products(shape), interval // (shape.output.height * shape.output.width)))


def _multipliers(layers: Sequence[LayerShape], interval: int) -> int:
    """Multipliers of all layers at an interval; without bound where a layer has more positions than cycles."""
    if any(s.output.height * s.output.width > interval for s in layers):
        return 1 << 60
    return sum(-(-_products(s) // _reuse(s, interval)) for s in layers)
