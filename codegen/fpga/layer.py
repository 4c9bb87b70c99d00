"""A layer with its numbers, and what it computes: the integer reference that the hardware equals bit by bit."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from billhook.ir.errors import MeasureError

from .schedule import Requantisation
from .shape import LayerShape

Int8 = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """weight: int8 [O, I / groups, kh, kw]; bias: int32 [O] in units of the accumulators; multiplier: uint16 [O].

    source, residual, output: names of maps.
    """

    name: str
    shape: LayerShape
    source: str
    output: str
    residual: str | None
    weight: Int8
    bias: NDArray[np.int32]
    multiplier: NDArray[np.uint16]
    numbers: Requantisation


def run_layer(layer: Layer, x: Int8, residual: Int8 | None = None) -> Int8:
    """The layer's output [O, H, W] for a source [I, H, W] and a residual of the output's shape. Pure, integers only.

    Sums are taken in float64, in which they are exact. Raises MeasureError where an accumulator would overflow 32 bits.
    """
    acc = _accumulate(layer, x) + layer.bias[:, None, None].astype(np.int64)
    if np.abs(acc).max(initial=0) >= 2**31:
        raise MeasureError(f"layer {layer.name}: an accumulator overflows 32 bits; calibrate with inputs of the right scale")
    n = layer.numbers
    total = acc * layer.multiplier[:, None, None].astype(np.int64)
    if residual is not None:
        total += residual.astype(np.int64) * n.residual_multiplier << n.residual_shift
    return np.clip((total + (1 << n.shift - 1)) >> n.shift, n.low, n.high).astype(np.int8)


def _accumulate(layer: Layer, x: Int8) -> NDArray[np.int64]:
    shape = layer.shape
    source = torch.from_numpy(x.astype(np.float64))[None]
    weight = torch.from_numpy(layer.weight.astype(np.float64))
    if not shape.maximum:
        return F.conv2d(source, weight, None, shape.stride, shape.padding, 1, shape.groups)[0].numpy().astype(np.int64)
    (ph, pw), (kh, kw) = shape.padding, shape.kernel
    padded = F.pad(source, (pw, pw, ph, ph))[0].numpy().astype(np.int64)
    height, width = shape.output.height, shape.output.width
    sh, sw = shape.stride
    taps = [
        padded[:, ky : ky + (height - 1) * sh + 1 : sh, kx : kx + (width - 1) * sw + 1 : sw]
        * layer.weight[:, 0, ky, kx, None, None].astype(np.int64)
        for ky in range(kh)
        for kx in range(kw)
    ]
    return np.max(taps, axis=0)
