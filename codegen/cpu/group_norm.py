"""Group norm of a channel-blocked map, for any number of groups: one group is a layer norm of maps, as many as channels an instance norm.

Vectors hold channels, so sums over pixels are kept per channel and then added up within each group: first the means, then the squares of
what differs from them, then every pixel is scaled and shifted, with the epilogue behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Ref, Workload

from . import epilogue
from .candidate import Candidate, candidate
from .norm import summed
from .packing import input_sizes, pack_parameter, pack_vector
from .reduced import storages
from .vector import bind, each, flat_kernel, load, loop, sharing, store
from .window import Feature, feature

NAME = "group_norm"


@dataclass(frozen=True, slots=True)
class Norm:
    """A map, its groups, the numbers of the inputs that scale and shift its channels, and what is added to the variance."""

    map: Feature
    groups: int
    weight: int | None
    bias: int | None
    eps: float


def norm_of(workload: Workload) -> Norm | None:
    """The anchor as a group norm of a blocked map with parameters; None otherwise."""
    call, out = workload.anchor, workload.output
    if call.op != "aten.group_norm.default" or call.args[0] != Ref(0) or not out.block or workload.inputs[0] != out:
        return None
    groups, *vectors = call.args[1:4]
    eps = call.args[4] if len(call.args) > 4 else 1e-5
    numbers = [v.index if isinstance(v, Ref) else None for v in vectors]
    found = feature(out)
    if found is None or not isinstance(groups, int) or not isinstance(eps, float | int):
        return None
    if any(i is not None and (i >= len(workload.inputs) or workload.roles[i] != "parameter") for i in numbers):
        return None
    return Norm(found, groups, numbers[0], numbers[1], float(eps))


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """One candidate, or () if the workload is no such norm."""
    return (candidate(NAME),) if norm_of(workload) is not None and epilogue.fusible(workload, 1) else ()


def pack(workload: Workload, _choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """A parameter of the norm or of the epilogue, padded with zeros."""
    norm = norm_of(workload)
    assert norm is not None
    return pack_vector(array, _whole(norm)) if index in (norm.weight, norm.bias) else pack_parameter(workload, index, array)


def _whole(norm: Norm) -> int:
    """Channels with the padding lanes."""
    return norm.map.blocks * norm.map.block


def lower(workload: Workload, _choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    norm = norm_of(workload)
    assert norm is not None
    own = {i: _whole(norm) for i in (norm.weight, norm.bias) if i is not None}
    threads = sharing(target.threads, 4 * norm.map.elements)

    def body(*buffers: Any) -> None:
        with loop(0, norm.map.batch) as n:
            _sample(workload, norm, buffers, n, threads)

    return flat_kernel([*input_sizes(workload, own), workload.output.elements], body, dtypes=storages(workload))


def _sample(workload: Workload, norm: Norm, buffers: Sequence[Any], n: Any, threads: int) -> None:
    lanes, area = norm.map.block, norm.map.height * norm.map.width
    means, scales = (T.alloc_buffer((_whole(norm),), "float32") for _ in range(2))

    def pixel(block: Any, p: Any) -> Any:
        return load(buffers[0], ((n * norm.map.blocks + block) * area + p) * lanes, lanes)

    with each(norm.map.blocks, threads) as block:
        store(means, block * lanes, summed(lambda p: pixel(block, p), area, lanes), lanes)
    _by_group(norm, means, lambda total: total, area)
    with each(norm.map.blocks, threads) as block:
        mean = bind(load(means, block * lanes, lanes))

        def square(p: Any) -> Any:
            difference = bind(pixel(block, p) - mean)
            return difference * difference

        store(scales, block * lanes, summed(square, area, lanes), lanes)
    _by_group(norm, scales, lambda variance: T.float32(1.0) / T.sqrt(variance + T.float32(norm.eps)), area)
    with each(norm.map.blocks, threads) as block:
        scale, shift = _affine(norm, buffers, means, scales, block * lanes)
        with loop(0, area) as p:
            element = ((n * norm.map.blocks + block) * area + p) * lanes
            value = bind(pixel(block, p) * scale + shift)
            place = epilogue.Place(lanes, element, block * lanes, (n * norm.map.blocks + block) * lanes)
            store(buffers[-1], element, epilogue.apply(workload, 1, {len(workload.inputs): value}, buffers, place), lanes)


def _by_group(norm: Norm, values: Any, result: Callable[[Any], Any], area: int) -> None:
    """Replace per-channel sums by a function of their group's mean; zero beyond the last channel."""
    members = norm.map.channels // norm.groups
    total = T.alloc_buffer((1,), "float32")
    with loop(0, norm.groups) as g:
        T.buffer_store(total, T.float32(0.0), [0])
        with loop(0, members) as k:
            T.buffer_store(total, total[0] + values[g * members + k], [0])
        found = bind(result(total[0] * T.float32(1 / (members * area))))
        with loop(0, members) as k:
            T.buffer_store(values, found, [g * members + k])
    if norm.map.channels < _whole(norm):
        with loop(norm.map.channels, _whole(norm)) as c:
            T.buffer_store(values, T.float32(0.0), [c])


def _affine(norm: Norm, buffers: Sequence[Any], means: Any, scales: Any, channel: Any) -> tuple[Any, Any]:
    """What pixels are multiplied by and what is added then, for the vector from a channel on."""
    lanes = norm.map.block
    scale = load(scales, channel, lanes)
    if norm.weight is not None:
        scale = scale * load(buffers[norm.weight], channel, lanes)
    scale = bind(scale)
    shift = T.broadcast(T.float32(0.0), lanes) - load(means, channel, lanes) * scale
    return scale, bind(shift if norm.bias is None else shift + load(buffers[norm.bias], channel, lanes))
