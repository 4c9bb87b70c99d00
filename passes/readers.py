"""Readers: the layers that sum over a dimension with a weight, as matrix products over features.

A linear map or a convolution is W @ features, where the features are the inputs, for a convolution all that its window sees. What
can be said about such a layer from data follows from the second moments of its features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.nn import functional as F

from billhook.ir.dims import Dim
from billhook.ir.program import Program

from .norms import argument, operator, state_name

_CONVOLUTIONS = {"aten.conv1d": 1, "aten.conv2d": 2}

ALL_ROWS = 1 << 62  # more than there are


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer: its node, the value that it reads, the names of its parameters, and the types of its input and output widths.

    taps: window positions per input index (1 for linear maps). window: kernel, stride, padding, dilation of a convolution.
    """

    node: str
    source: str
    weight: str
    bias: str | None
    inputs: Dim
    outputs: Dim
    taps: int
    window: tuple[tuple[int, int], ...] = ()

    def features(self, x: torch.Tensor, most: int = ALL_ROWS) -> torch.Tensor:
        """Features [rows, inputs * taps] of an input value, float64; a row for every output position of every sample.

        most: rows, about, spread over all samples and all of the map: neighbours say nearly the same.
        """
        if not self.window:
            return _spread(x.reshape(-1, x.shape[-1]), most).double()
        kernel, stride, padding, dilation = self.window
        maps = x if x.dim() == 4 else x.unsqueeze(-2)
        places = tuple(
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(maps.shape[-2:], kernel, stride, padding, dilation, strict=True)
        )
        rows, columns = _steps(len(maps), places, most)
        seen = F.unfold(maps.double(), kernel, dilation=dilation, padding=padding, stride=(rows * stride[0], columns * stride[1]))
        return _spread(seen.transpose(1, 2).reshape(-1, seen.shape[1]), most)

    def results(self, y: torch.Tensor, most: int = ALL_ROWS) -> torch.Tensor:
        """The layer's own value at the rows of `features` with the same limit, [rows, outputs], float64."""
        if self.window:
            maps = y if y.dim() == 4 else y.unsqueeze(-2)
            rows, columns = _steps(len(maps), (maps.shape[-2], maps.shape[-1]), most)
            y = maps[..., ::rows, ::columns].movedim(1, -1)
        return _spread(y.reshape(-1, self.outputs.size), most).double()

    def columns(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Features of input positions [...]: [..., taps]."""
        return positions[..., None] * self.taps + np.arange(self.taps)


def _steps(samples: int, places: tuple[int, ...], most: int) -> tuple[int, int]:
    """Every how many rows and columns of an output map [rows, columns] to look, for `most` places of all samples."""
    over = max(samples * math.prod(places) / most, 1.0)
    rows = min(math.ceil(math.sqrt(over)), places[0])
    return rows, min(math.ceil(over / rows), places[1])


def _spread(rows: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // most))]


def find_readers(program: Program) -> tuple[Reader, ...]:
    """All linear maps and ungrouped one- and two-dimensional convolutions whose weight is a parameter, in execution order."""
    found = (_reader(program, node) for node in program.nodes())
    return tuple(reader for reader in found if reader is not None)


def _reader(program: Program, node: fx.Node) -> Reader | None:
    name, weight = operator(node), state_name(node, "weight")
    rank = _CONVOLUTIONS.get(name)
    source = argument(node, "input")
    if weight is None or not isinstance(source, fx.Node) or (rank is None and name != "aten.linear"):
        return None
    types = program.types.get(cast("fx.Node", argument(node, "weight")).name, ())
    shape: Sequence[int] = argument(node, "weight").meta["val"].shape
    if len(types) != len(shape):
        return None
    bias = state_name(node, "bias")
    if argument(node, "bias") is not None and bias is None:
        return None
    if rank is None:
        return Reader(node.name, source.name, weight, bias, types[1], types[0], 1)
    groups, padding = argument(node, "groups"), argument(node, "padding")
    if (groups or 1) != 1 or isinstance(padding, str):
        return None
    stride, dilation = argument(node, "stride"), argument(node, "dilation")
    parts = (tuple(shape[2:]), _spatial(stride, rank, 1), _spatial(padding, rank, 0), _spatial(dilation, rank, 1))
    window = tuple(_plane(values, fill) for values, fill in zip(parts, (1, 1, 0, 1), strict=True))
    return Reader(node.name, source.name, weight, bias, types[1], types[0], int(np.prod(shape[2:])), window)


def _spatial(value: Any, rank: int, default: int) -> tuple[int, ...]:
    """One number for each spatial dimension."""
    items = tuple(value) if isinstance(value, (list, tuple)) else (default if value is None else int(value),)
    return items * rank if len(items) == 1 else items


def _plane(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    """Two spatial numbers; a sequence is a plane of height 1."""
    return values if len(values) == 2 else (fill, values[0])
