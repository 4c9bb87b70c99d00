"""Chains of elementwise operators on tensors of one shape and layout, with per-channel vectors and scalars broadcast."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from billhook.ir.target import Target
from billhook.ir.workload import Ref, Workload

from . import epilogue
from .candidate import Candidate, candidate
from .packing import input_sizes, pack_parameter
from .reduced import is_float, storages
from .vector import divide, each, flat_kernel, loop, sharing, store_partial

NAME = "elementwise"


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """One candidate, or () if some call is not elementwise."""
    out = workload.output
    used = {a.index for c in workload.calls for a in c.args if isinstance(a, Ref) and a.index < len(workload.inputs)}
    if not is_float(out) or not out.shape or 0 in out.shape or not epilogue.fusible(workload, 0):
        return ()
    if not any(epilogue.access(workload, i) == "element" for i in used):
        return ()
    return (candidate(NAME),)


def pack(workload: Workload, _choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """A parameter of the chain."""
    return pack_parameter(workload, index, array)


def lower(workload: Workload, _choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    out = workload.output
    sizes = input_sizes(workload)
    lanes = out.block or target.lanes
    threads = sharing(target.threads, out.elements * len(workload.calls))
    kinds = {epilogue.access(workload, i) for i in range(len(workload.inputs))}

    def body(*buffers: Any) -> None:
        if kinds <= {"element", "scalar"}:
            _row(workload, buffers, lanes, 0, out.elements, threads)
        elif out.block:
            _blocked(workload, buffers, lanes, threads)
        else:
            width = out.shape[-1]
            with each(out.elements // width, threads) as row:
                _row(workload, buffers, lanes, row * width, width)

    return flat_kernel([*sizes, out.elements], body, dtypes=storages(workload))


def _row(workload: Workload, buffers: Sequence[Any], lanes: int, start: Any, length: int, threads: int = 1) -> None:
    """`length` contiguous elements that begin with channel 0."""
    full, rest = divmod(length, lanes)
    if full:
        with each(full, threads) as i:
            _vector(workload, buffers, epilogue.Place(lanes, start + i * lanes, i * lanes))
    if rest:
        _vector(workload, buffers, epilogue.Place(lanes, start + full * lanes, full * lanes, count=rest))


def _blocked(workload: Workload, buffers: Sequence[Any], lanes: int, threads: int) -> None:
    batch, channels, height, width = workload.output.shape
    blocks = -(-channels // lanes)
    with each(batch * blocks, threads) as block, loop(0, height * width) as p:
        element = (block * (height * width) + p) * lanes
        _vector(workload, buffers, epilogue.Place(lanes, element, divide(block, blocks)[1] * lanes, block * lanes))


def _vector(workload: Workload, buffers: Sequence[Any], place: epilogue.Place) -> None:
    value = epilogue.apply(workload, 0, {}, buffers, place)
    store_partial(buffers[-1], place.element, value, place.whole, place.lanes)
