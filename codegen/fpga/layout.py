"""How maps, weights and parameters lie in memory."""

import numpy as np
from numpy.typing import NDArray

from .accelerator import Accelerator
from .layer import Int8, Layer
from .schedule import weight_tiles
from .shape import MapShape

Bytes = NDArray[np.uint8]


def pack_map(values: Int8, shape: MapShape, columns: int) -> Bytes:
    """[C, H, W] as blocks of channels with a border of zeros: [blocks, H + 2b, W + 2b, columns]."""
    b, blocks = shape.border, shape.blocks(columns)
    packed = np.zeros((blocks, *shape.padded, columns), dtype=np.int8)
    full = np.zeros((blocks * columns, shape.height, shape.width), dtype=np.int8)
    full[: shape.channels] = values
    packed[:, b : b + shape.height, b : b + shape.width] = full.reshape(blocks, columns, shape.height, shape.width).transpose(0, 2, 3, 1)
    return packed.reshape(-1).view(np.uint8)


def unpack_map(memory: Bytes, shape: MapShape, columns: int) -> Int8:
    """Inverse of `pack_map`."""
    b, blocks = shape.border, shape.blocks(columns)
    packed = memory.view(np.int8).reshape(blocks, *shape.padded, columns)[:, b : b + shape.height, b : b + shape.width]
    return packed.transpose(0, 3, 1, 2).reshape(blocks * columns, shape.height, shape.width)[: shape.channels]


def pack_weights(layer: Layer, accelerator: Accelerator) -> Bytes:
    """Tiles [columns, rows] in the order in which the executor takes them: output block, input block, filter row, filter column."""
    shape, a = layer.shape, accelerator
    read, made = shape.source.channels // shape.groups, shape.output.channels // shape.groups
    tiles: list[Int8] = []
    for block, inputs in weight_tiles(shape, a):
        tile = np.zeros((*shape.kernel, a.columns, a.rows), dtype=np.int8)
        for column in range(min(a.columns, shape.output.channels - block * a.columns)):
            output = block * a.columns + column
            start = output // made * read  # the first channel of its group
            first, last = max(start, inputs * a.rows), min(start + read, (inputs + 1) * a.rows)
            if first < last:
                weights = layer.weight[output, first - start : last - start]
                tile[:, :, column, first - inputs * a.rows : last - inputs * a.rows] = weights.transpose(1, 2, 0)
        tiles.append(tile.reshape(-1))
    return np.concatenate(tiles).view(np.uint8)


def pack_parameters(layer: Layer, accelerator: Accelerator) -> Bytes:
    """For every beat of channels its biases (int32), then its multipliers (uint16)."""
    a = accelerator
    channels = layer.shape.output.blocks(a.columns) * a.columns
    bias = np.zeros(channels, dtype="<i4")
    bias[: len(layer.bias)] = layer.bias
    multiplier = np.zeros(channels, dtype="<u2")
    multiplier[: len(layer.multiplier)] = layer.multiplier
    beats = [bias.reshape(-1, a.bus).view(np.uint8), multiplier.reshape(-1, a.bus).view(np.uint8)]
    return np.concatenate(beats, axis=1).reshape(-1)
