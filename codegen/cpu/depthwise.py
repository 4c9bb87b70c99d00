"""Depthwise 2-D convolution on a channel-blocked map: one vector holds a block of channels of a pixel.

A tile of rows x columns pixels of one channel block stays in registers with all taps unrolled, so that neighbouring pixels share loads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import epilogue
from .candidate import Candidate, candidate
from .packing import input_sizes, pack_parameter
from .reduced import storages
from .segments import Segment, segments
from .vector import accumulate, divide, each, flat_kernel, load, loop, register, sharing, store
from .window import Conv, conv_of

NAME = "depthwise"
_TILES = ((2, 7), (4, 4), (2, 4))


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """A few tiles, or () if the anchor is not a depthwise convolution between maps of the same block."""
    conv = conv_of(workload)
    if conv is None or not workload.output.block or not epilogue.fusible(workload, 1):
        return ()
    if conv.groups != conv.source.channels or conv.groups != conv.target.channels or conv.source.block != conv.target.block:
        return ()
    fitting = {(min(r, conv.rows.out), min(q, conv.columns.out)): None for r, q in _TILES if r * q + 2 <= target.registers}
    return tuple(candidate(NAME, rows=r, columns=q) for r, q in fitting or {(1, 4): None})


def pack(workload: Workload, _choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """The weight as [channel block][row tap][column tap][lane]; vectors padded."""
    conv = conv_of(workload)
    assert conv is not None
    if index != conv.weight:
        return pack_parameter(workload, index, array)
    full = np.zeros((conv.source.blocks * conv.source.block, conv.taps), np.float32)
    full[: array.shape[0]] = array.reshape(array.shape[0], conv.taps)
    return np.ascontiguousarray(full.reshape(conv.source.blocks, conv.source.block, conv.taps).transpose(0, 2, 1)).reshape(-1)


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    conv = conv_of(workload)
    assert conv is not None
    weight = conv.source.blocks * conv.source.block * conv.taps
    sizes = input_sizes(workload, {conv.weight: weight})

    def body(*buffers: Any) -> None:
        with each(conv.source.batch * conv.source.blocks, sharing(target.threads, conv.target.elements * conv.taps)) as both:
            n, c = divide(both, conv.source.blocks)
            for y in segments(conv.rows, choice["rows"]):
                with loop(0, y.count) as i:
                    for x in segments(conv.columns, choice["columns"]):
                        with loop(0, x.count) as j:
                            _tile(workload, conv, buffers, (n, c), (y, y.start + i * y.tile), (x, x.start + j * x.tile))

    return flat_kernel([*sizes, workload.output.elements], body, dtypes=storages(workload))


def _tile(
    workload: Workload, conv: Conv, buffers: Sequence[Any], at: tuple[Any, Any], down: tuple[Segment, Any], across: tuple[Segment, Any]
) -> None:
    (n, c), (y, y0), (x, x0), lanes = at, down, across, conv.source.block
    data, weight = buffers[conv.data], buffers[conv.weight]
    start = None if conv.bias is None else load(buffers[conv.bias], c * lanes, lanes)
    sums = {(i, j): register(lanes, start) for i in range(y.tile) for j in range(x.tile)}
    plane = (n * conv.source.blocks + c) * conv.source.height
    for r in y.used:
        for q in x.used:
            taps = load(weight, (c * conv.taps + r * conv.columns.window + q) * lanes, lanes)
            for (i, j), total in sums.items():
                if r in y.taps[i] and q in x.taps[j]:
                    row = (y0 + i) * conv.rows.stride + conv.rows.offset(0, r)
                    column = (x0 + j) * conv.columns.stride + conv.columns.offset(0, q)
                    accumulate(total, load(data, ((plane + row) * conv.source.width + column) * lanes, lanes) * taps, lanes)
    for (i, j), total in sums.items():
        element = (((n * conv.target.blocks + c) * conv.target.height + y0 + i) * conv.target.width + x0 + j) * lanes
        place = epilogue.Place(lanes, element, c * lanes, (n * conv.target.blocks + c) * lanes)
        value = epilogue.apply(workload, 1, {len(workload.inputs): load(total, 0, lanes)}, buffers, place)
        store(buffers[-1], element, value, lanes)
