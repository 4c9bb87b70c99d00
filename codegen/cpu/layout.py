"""Kernels that only move data: layout changes, flattening of blocked maps, and concatenation along the channels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Ref, TensorType, Workload

from .candidate import Candidate, candidate
from .gridded import OnGrid
from .reduced import is_float, storages
from .vector import flat_kernel, load, loop, store
from .window import Feature, feature

NAME = "layout"
_WORD, _IMAGE_BLOCK = 4, 8  # bytes of a word; channels of a block, and pixels, that make a vector of 64-bit words


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """One candidate for the calls of this file, () for other workloads."""
    covered = len(workload.calls) == 1 and "activation" in workload.roles and _copies(workload) is not None
    return (candidate(NAME),) if covered else ()


def pack(_workload: Workload, _choice: Candidate, _target: Target, _index: int, array: np.ndarray) -> np.ndarray:
    """Constant maps (what a branch of no channels leaves) stay in torch's order."""
    return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)


def lower(workload: Workload, _choice: Candidate, _target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    copies = _copies(workload)
    assert copies is not None
    goal = copies[-1]

    def body(*buffers: Any) -> None:
        if _is_image(copies[0], goal, buffers[-1]):
            _pack_image(copies[0], buffers[0], goal, buffers[-1])
            return
        first = 0
        for source, buffer in zip(copies[:-1], buffers[:-1], strict=True):
            _copy(source, buffer, goal, buffers[-1], first)
            first += source.channels
        _clear_padding(goal, buffers[-1])

    return flat_kernel([t.elements for t in workload.inputs] + [workload.output.elements], body, dtypes=storages(workload))


def _copies(workload: Workload) -> tuple[Feature, ...] | None:
    """The maps that are copied one after the other into the last one, in channel order; None if the anchor is no such call."""
    call = workload.anchor
    if any(not is_float(t) or 0 in t.shape for t in (*workload.inputs, workload.output)):
        return None
    if call.op == "billhook.layout":
        return _features((workload.inputs[0], workload.output))
    if call.op in ("aten.flatten.using_ints", "aten.view.default", "aten.reshape.default", "aten.squeeze.dims"):
        return _flattening(workload)
    parts = call.args[0]
    if call.op == "aten.cat.default" and isinstance(parts, tuple):
        axis = call.args[1] if len(call.args) > 1 else 0
        order = [a.index for a in parts if isinstance(a, Ref)]
        if axis not in (1, 1 - len(workload.output.shape)) or order != list(range(len(workload.inputs))):
            return None
        return _features((*[workload.inputs[i] for i in order], workload.output))
    return None


def _features(types: Sequence[TensorType]) -> tuple[Feature, ...] | None:
    """The types as maps; row-major tensors of another rank count as [N, C, 1, everything else]."""
    found = [feature(t) if t.block else _folded(t) for t in types]
    maps = [f for f in found if f is not None]
    areas = {f.height * f.width for f in maps}
    if not maps or len(maps) != len(types) or len(areas) != 1:
        return None
    shape = next((f for f, t in zip(maps, types, strict=True) if t.block), maps[0])
    return tuple(Feature(f.batch, f.channels, shape.height, shape.width, f.block) for f in maps)


def _folded(given: TensorType) -> Feature | None:
    if len(given.shape) < 2:
        return None
    return Feature(given.shape[0], given.shape[1], 1, int(np.prod(given.shape[2:], dtype=int)), 1)


def _flattening(workload: Workload) -> tuple[Feature, ...] | None:
    """[N, C, H, W] in any layout to row-major [N, C*H*W]: the same copy as to row-major [N, C, H, W]."""
    source, out = feature(workload.inputs[0]), workload.output
    per_sample = int(np.prod(workload.inputs[0].shape[1:]))
    if source is None or out.block or out.shape != (source.batch, per_sample):
        return None
    return source, Feature(source.batch, source.channels, source.height, source.width, 1)


def _is_image(source: Feature, goal: Feature, write: Any) -> bool:
    """Whether a row-major map of few channels, all of the goal's, becomes bytes in blocks of eight channels."""
    few = source.block == 1 and source.channels == goal.channels <= _WORD and goal.block == _IMAGE_BLOCK
    return few and isinstance(write, OnGrid) and source.height * source.width % _IMAGE_BLOCK == 0


def _pack_image(source: Feature, read: Any, goal: Feature, write: OnGrid) -> None:
    """Eight pixels at a time: their channels put together in words, and the upper bytes of a block left as they fall."""
    area = source.height * source.width
    with loop(0, source.batch) as n, loop(0, area // _IMAGE_BLOCK) as i:
        word = None
        for c in range(source.channels):
            byte = write.nearest(load(read, (n * source.channels + c) * area + i * _IMAGE_BLOCK, _IMAGE_BLOCK), _IMAGE_BLOCK)
            shifted = byte if c == 0 else T.shift_left(byte, T.broadcast(T.int32(8 * c), _IMAGE_BLOCK))
            word = shifted if word is None else T.bitwise_or(word, shifted)
        pixels = T.reinterpret(f"uint8x{_IMAGE_BLOCK**2}", T.cast(word, f"int64x{_IMAGE_BLOCK}"))
        T.buffer_store(write.bytes, pixels, [T.ramp((n * area + i * _IMAGE_BLOCK) * goal.block, 1, _IMAGE_BLOCK**2)])


def _copy(source: Feature, read: Any, goal: Feature, write: Any, first: int) -> None:
    """Copy a map into channels [first, first + source.channels) of another: whole vectors where the lanes line up."""
    area = source.height * source.width
    step = source.block if source.block == goal.block and first % goal.block == 0 else 1
    full, rest = divmod(source.channels, step)
    with loop(0, source.batch) as n:
        if step > 1 or source.block == 1 == goal.block:
            _copy_blocks(source, read, goal, write, first, n, full)
        else:
            rest = source.channels
        if rest:
            with loop(source.channels - rest, source.channels) as c, loop(0, area) as p:
                store(write, _index(goal, n, c + first, p), load(read, _index(source, n, c, p), 1), 1)


def _copy_blocks(source: Feature, read: Any, goal: Feature, write: Any, first: int, n: Any, blocks: int) -> None:
    """Copy whole channel blocks, which are contiguous in both maps."""
    area = source.height * source.width * source.block
    start, goal_start = n * source.blocks * area, (n * goal.blocks + first // goal.block) * area
    lanes = next(v for v in (16, 8, 4, 1) if (blocks * area) % v == 0)
    if not blocks:
        return
    with loop(0, blocks * area // lanes) as i:
        store(write, goal_start + i * lanes, load(read, start + i * lanes, lanes), lanes)


def _index(given: Feature, n: Any, c: Any, p: Any) -> Any:
    """Flat index of channel c, pixel p (row-major over height and width)."""
    area = given.height * given.width
    block = n * given.blocks + T.floordiv(c, given.block)
    return (block * area + p) * given.block + T.floormod(c, given.block)


def _clear_padding(goal: Feature, write: Any) -> None:
    """Zero the lanes beyond the last channel, which consumers may multiply by zero but must find finite."""
    lanes = goal.blocks * goal.block - goal.channels
    if lanes and not isinstance(write, OnGrid):  # every byte is finite
        with loop(0, goal.batch) as n, loop(goal.channels, goal.channels + lanes) as c, loop(0, goal.height * goal.width) as p:
            store(write, _index(goal, n, c, p), T.float32(0.0), 1)
