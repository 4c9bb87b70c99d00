"""Block column sparsity of the weights of linear layers and convolutions (GRIM, Niu et al. 2021; with `taps`, PatDNN's kernel patterns).

The output channels are cut into blocks of rows; in each block only some columns of the weight matrix [outputs, inputs * taps] are kept, the
same number in all blocks, so that a kernel knows its loops. A weight that was masked so is an ordinary dense tensor with zeros: what
a kernel leaves out follows from the tensor, and the operators of ours below are defined for every tensor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

LINEAR, CONV = "billhook.block_linear.default", "billhook.block_conv2d.default"


@dataclass(frozen=True, slots=True)
class BlockPattern:
    """rows: output channels that share their columns. kept: columns that each block keeps. taps: of every input channel in a block
    exactly so many taps are kept (a kernel pattern; kept = taps * channels), or 0 where any columns may be.
    """

    rows: int
    kept: int
    taps: int = 0


def kept_columns(weight: NDArray[Any], pattern: BlockPattern) -> NDArray[np.intp]:
    """The columns [blocks, kept] that each block keeps, ascending: those of the largest norm. weight: [outputs, inputs, ...taps]."""
    outputs = len(weight)
    blocks = -(-outputs // pattern.rows)
    full = np.zeros((blocks * pattern.rows, int(np.prod(weight.shape[1:]))))
    full[:outputs] = weight.reshape(outputs, -1)
    norms = np.square(full).reshape(blocks, pattern.rows, -1).sum(1)
    if not pattern.taps:
        best = np.argsort(-norms, axis=1, kind="stable")[:, : pattern.kept]
        return np.sort(best, axis=1)
    inputs = weight.shape[1]
    by_channel = norms.reshape(blocks, inputs, -1)
    best = np.sort(np.argsort(-by_channel, axis=2, kind="stable")[:, :, : pattern.taps], axis=2)
    return (best + np.arange(inputs)[:, None] * by_channel.shape[2]).reshape(blocks, -1)


def block_mask(weight: torch.Tensor, pattern: BlockPattern) -> torch.Tensor:
    """1 where a weight [outputs, inputs, ...taps] is kept, 0 elsewhere, in the weight's shape and type."""
    columns = torch.from_numpy(kept_columns(weight.detach().double().numpy(), pattern))
    mask = torch.zeros(len(columns), weight[0].numel(), dtype=weight.dtype).scatter_(1, columns, 1.0)
    return mask.repeat_interleave(pattern.rows, 0)[: len(weight)].reshape(weight.shape)


def block_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, rows: int, kept: int, taps: int) -> torch.Tensor:
    """A linear layer whose weight keeps only the columns of a pattern."""
    return F.linear(x, weight * block_mask(weight, BlockPattern(rows, kept, taps)), bias)


def block_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    rows: int,
    kept: int,
    taps: int,
) -> torch.Tensor:
    """A convolution whose weight keeps only the columns of a pattern."""
    masked = weight * block_mask(weight, BlockPattern(rows, kept, taps))
    return F.conv2d(x, masked, bias, list(stride), list(padding), list(dilation), groups)


OPERATORS: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType({LINEAR: block_linear, CONV: block_conv2d})
