"""Pooling of channel-blocked maps: max, average, adaptive average, and the mean over all pixels, with a fused epilogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Call, TensorType, Workload

from . import epilogue
from .candidate import Candidate, candidate
from .gridded import OnGrid
from .packing import input_sizes, pack_parameter
from .reduced import is_float, storages
from .segments import Axis, segments
from .vector import accumulate, bind, each, flat_kernel, load, loop, register, sharing, splat, store, store_partial
from .window import Feature, feature, pair

NAME = "pool"
_SUMS = 4  # independent partial sums hide the latency of additions


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring output positions whose windows have the same shape: `count` positions from `start`.

    The first position's window reads `length` inputs from `first` on, `step` apart; the next position's lies `stride` further.
    divisor: what an average divides by along this axis.
    """

    start: int
    count: int
    first: int
    stride: int
    length: int
    step: int
    divisor: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling operator on a blocked map."""

    source: Feature
    rows: tuple[Run, ...]
    columns: tuple[Run, ...]
    average: bool
    scale: float  # an average's result is multiplied by this (1 unless a divisor was given)


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """One candidate, or () if the anchor is no pooling of a blocked map."""
    covered = pool_of(workload) is not None and epilogue.fusible(workload, 1)
    return (candidate(NAME),) if covered else ()


def pack(workload: Workload, _choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """A parameter of the epilogue."""
    return pack_parameter(workload, index, array)


def lower(workload: Workload, _choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    pool = pool_of(workload)
    assert pool is not None
    sizes = input_sizes(workload)
    source, blocked = pool.source, bool(workload.output.block)
    partial = 0 if blocked else source.channels % source.block

    def body(*buffers: Any) -> None:
        with loop(0, source.batch) as n:
            if source.blocks > bool(partial):
                with each(source.blocks - bool(partial), sharing(target.threads, source.elements)) as c:
                    _channel_block(workload, pool, buffers, n, c, 0)
            if partial:
                _channel_block(workload, pool, buffers, n, source.blocks - 1, partial)

    return flat_kernel([*sizes, workload.output.elements], body, dtypes=storages(workload))


def _channel_block(workload: Workload, pool: Pool, buffers: Sequence[Any], n: Any, c: Any, count: int) -> None:
    """All output pixels of one channel block; `count` valid lanes (0: all)."""
    source, lanes = pool.source, pool.source.block
    height, width = (sum(r.count for r in runs) for runs in (pool.rows, pool.columns))
    for y in pool.rows:
        with loop(0, y.count) as i:
            for x in pool.columns:
                with loop(0, x.count) as j:
                    value = _window(pool, buffers[0], (n * source.blocks + c) * source.height, (y, i), (x, j))
                    if workload.output.block:
                        element = (((n * source.blocks + c) * height + y.start + i) * width + x.start + j) * lanes
                    else:
                        element = n * source.channels + c * lanes
                    place = epilogue.Place(lanes, element, c * lanes, (n * source.blocks + c) * lanes, count)
                    result = epilogue.apply(workload, 1, {len(workload.inputs): value}, buffers, place)
                    store_partial(buffers[-1], element, result, place.whole, lanes)


def _window(pool: Pool, data: Any, plane: Any, down: tuple[Run, Any], across: tuple[Run, Any]) -> Any:
    """The pooled vector of one output pixel."""
    (y, i), (x, j), lanes = down, across, pool.source.block
    wide = min(_SUMS, x.length)
    whole = None if pool.average or not isinstance(data, OnGrid) else data  # the largest byte stands for the largest number
    empty = splat(0.0 if pool.average else -3.4e38, lanes)
    parts = [register(lanes, empty) if whole is None else register(lanes, dtype="uint8") for _ in range(wide)]

    def combine(part: Any, row: Any, q: Any) -> None:
        column = x.first + j * x.stride + q * x.step
        place = ((plane + row) * pool.source.width + column) * lanes
        if pool.average:
            accumulate(part, load(data, place, lanes), lanes)
        else:
            value = load(data, place, lanes) if whole is None else whole.stored(place, lanes)
            store(part, 0, T.max(load(part, 0, lanes), value), lanes)

    with loop(0, y.length) as r:
        row = y.first + i * y.stride + r * y.step
        if x.length >= wide:
            with loop(0, x.length // wide) as k:
                for p, part in enumerate(parts):
                    combine(part, row, k * wide + p)
        for q in range(x.length // wide * wide, x.length):
            combine(parts[q % wide], row, q)
    for part in parts[1:]:
        if pool.average:
            accumulate(parts[0], load(part, 0, lanes), lanes)
        else:
            store(parts[0], 0, T.max(load(parts[0], 0, lanes), load(part, 0, lanes)), lanes)
    total = load(parts[0], 0, lanes)
    if whole is not None:
        return bind(whole.real(total, lanes))
    return bind(total * splat(pool.scale / (y.divisor * x.divisor), lanes) if pool.average else total)


def pool_of(workload: Workload) -> Pool | None:
    """The anchor as a pooling of a blocked map, or None."""
    call, source = workload.anchor, feature(workload.inputs[0])
    if source is None or not workload.inputs[0].block or not _fits_output(workload, source):
        return None
    height, width = workload.output.shape[2:] if len(workload.output.shape) == 4 else (1, 1)
    sizes = ((source.height, height), (source.width, width))
    if call.op == "aten.max_pool2d.default":
        return _windowed(source, call, sizes, average=False)
    if call.op == "aten.avg_pool2d.default":
        return _windowed(source, call, sizes, average=True)
    if call.op == "aten.adaptive_avg_pool2d.default" or _means_all_pixels(call):
        rows, columns = (_adaptive(size, out) for size, out in sizes)
        return Pool(source, rows, columns, True, 1.0)
    return None


def _fits_output(workload: Workload, source: Feature) -> bool:
    out: TensorType = workload.output
    if not is_float(out) or out.shape[:2] != (source.batch, source.channels):
        return False
    return out.block == source.block or (out.block == 0 and all(size == 1 for size in out.shape[2:]))


def _means_all_pixels(call: Call) -> bool:
    if call.op != "aten.mean.dim" or not isinstance(call.args[1], tuple) or any(v is not None for _, v in call.kwargs):
        return False
    return sorted(d % 4 for d in call.args[1] if isinstance(d, int)) == [2, 3]


def _windowed(source: Feature, call: Call, sizes: Sequence[tuple[int, int]], average: bool) -> Pool:
    args = (*call.args, *((None,) * 7))
    window = pair(args[1])
    stride = pair(args[2]) if args[2] else window
    padding = pair(args[3]) if args[3] is not None else (0, 0)
    dilation = (1, 1) if average or args[4] is None else pair(args[4])
    include = not average or args[5] is not False
    divisor = args[6] if average else None
    axes = [Axis(size, out, window[d], stride[d], padding[d], dilation[d]) for d, (size, out) in enumerate(sizes)]
    rows, columns = (_runs(axis, include, divisor is not None) for axis in axes)
    return Pool(source, rows, columns, average, 1.0 / divisor if isinstance(divisor, int) else 1.0)


def _runs(axis: Axis, include_padding: bool, fixed_divisor: bool) -> tuple[Run, ...]:
    """The windows along one axis. An average that includes padding still leaves out what lies beyond the padding (ceil mode)."""
    runs: list[Run] = []
    for part in segments(axis, 1):
        taps = part.used
        counted = sum(axis.offset(part.start, t) < axis.size + axis.padding for t in range(axis.window))
        divisor = 1 if fixed_divisor else counted if include_padding else len(taps)
        runs.append(Run(part.start, part.count, axis.offset(part.start, taps[0]), axis.stride, len(taps), axis.dilation, divisor))
    return tuple(runs)


def _adaptive(size: int, out: int) -> tuple[Run, ...]:
    """Windows [floor(i size / out), ceil((i + 1) size / out)), one run per position unless they tile the axis."""
    if size % out == 0:
        return (Run(0, out, 0, size // out, size // out, 1, size // out),)
    bounds = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    return tuple(Run(i, 1, start, 0, stop - start, 1, stop - start) for i, (start, stop) in enumerate(bounds))
