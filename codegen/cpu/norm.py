"""Layer norm over the last dimension, followed by moves of whole rows (permutes, window partitions, rolls), which cost nothing extra.

The output is written row by row in its own order; each row is read from where the moves have taken it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Ref, Workload

from .candidate import Candidate, candidate
from .moves import View, chain, rows_stay, split_index, views
from .packing import pack_vector
from .reduced import is_float, storages
from .vector import accumulate, bind, each, flat_kernel, load, load_partial, loop, register, sharing, splat, store_partial

NAME = "norm"
_SUMS = 4  # independent partial sums hide the latency of additions


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm: what it reads, the length of a row, input numbers of scale and shift, and where output rows come from."""

    data: View
    width: int
    weight: int | None
    bias: int | None
    eps: float
    output: View  # the output as a view of the norm's result


def norm_of(workload: Workload) -> Norm | None:
    """The workload as moves, a layer norm over the last dimension, and moves of whole rows; None for any other."""
    number = next((i for i, c in enumerate(workload.calls) if c.op == "aten.layer_norm.default"), None)
    if number is None or workload.output.block or any(not is_float(t) for t in (*workload.inputs, workload.output)):
        return None
    seen = views(workload, number)
    data, shape, weight, bias, eps = (*workload.calls[number].args, None, None, 1e-5)[:5]
    vectors = [a.index if isinstance(a, Ref) else None for a in (weight, bias)]
    if seen is None or not isinstance(data, Ref) or data.index not in seen or not isinstance(eps, float | int):
        return None
    if any(v is not None and (v >= len(workload.inputs) or workload.roles[v] != "parameter") for v in vectors):
        return None
    view = seen[data.index]
    moves = chain(workload, number + 1, view.shape)
    if moves is None or shape != view.shape[-1:] or workload.roles[view.source] != "activation":
        return None
    width = view.shape[-1]
    if not rows_stay((*view.moves, *moves), width) or 0 in view.shape:
        return None
    return Norm(view, width, vectors[0], vectors[1], float(eps), View(0, workload.output.shape, view.shape, moves))


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """One candidate, or () if the workload is no layer norm."""
    return (candidate(NAME),) if norm_of(workload) is not None else ()


def pack(workload: Workload, _choice: Candidate, target: Target, _index: int, array: np.ndarray) -> np.ndarray:
    """Scale and shift, padded to whole vectors."""
    norm = norm_of(workload)
    assert norm is not None
    return pack_vector(array, _padded(norm.width, target.lanes))


def _padded(width: int, lanes: int) -> int:
    return -(-width // lanes) * lanes


def lower(workload: Workload, _choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    norm = norm_of(workload)
    assert norm is not None
    vector = _padded(norm.width, target.lanes)
    sizes = [given.elements if role == "activation" else vector for given, role in zip(workload.inputs, workload.roles, strict=True)]
    rows = workload.output.elements // norm.width

    def body(*buffers: Any) -> None:
        with each(rows, sharing(target.threads, 4 * workload.output.elements)) as row:
            position = row * norm.width
            normed = norm.output.address(split_index(position, workload.output.shape))
            source = norm.data.address(split_index(normed, norm.data.shape))
            _row(norm, buffers, source, position, target.lanes)

    return flat_kernel([*sizes, workload.output.elements], body, dtypes=storages(workload))


def _row(norm: Norm, buffers: tuple[Any, ...], source: Any, goal: Any, lanes: int) -> None:
    """Normalise one row: mean, then variance, then the result, which reads the row from the nearest cache."""
    data, source = buffers[norm.data.source], bind(source)
    full, rest = divmod(norm.width, lanes)

    def element(i: Any) -> Any:
        return load(data, source + i * lanes, lanes)

    total = summed(element, full, lanes)
    if rest:
        total = total + load_partial(data, source + full * lanes, rest, lanes)
    mean = bind(splat(_across(bind(total), lanes) * T.float32(1 / norm.width), lanes))

    def square(i: Any) -> Any:
        difference = bind(load(data, source + i * lanes, lanes) - mean)
        return difference * difference

    squares = summed(square, full, lanes)
    if rest:
        inside = T.ramp(0, 1, lanes) < T.broadcast(rest, lanes)
        difference = bind(T.Select(inside, load_partial(data, source + full * lanes, rest, lanes) - mean, splat(0.0, lanes)))
        squares = squares + difference * difference
    variance = _across(bind(squares), lanes) * T.float32(1 / norm.width)
    scale = bind(splat(T.float32(1.0) / T.sqrt(variance + T.float32(norm.eps)), lanes))

    def write(i: Any, count: int) -> None:
        y = (load_partial(data, source + i * lanes, count, lanes) - mean) * scale
        if norm.weight is not None:
            y = y * load(buffers[norm.weight], i * lanes, lanes)
        if norm.bias is not None:
            y = y + load(buffers[norm.bias], i * lanes, lanes)
        store_partial(buffers[-1], goal + i * lanes, bind(y), count, lanes)

    if full:
        with loop(0, full) as i:
            write(i, lanes)
    if rest:
        write(full, rest)


def summed(part: Any, count: int, lanes: int) -> Any:
    """The sum of part(0) ... part(count - 1)."""
    sums = [register(lanes) for _ in range(min(_SUMS, max(count, 1)))]
    if count >= len(sums):
        with loop(0, count // len(sums)) as i:
            for s, total in enumerate(sums):
                accumulate(total, part(i * len(sums) + s), lanes)
    for i in range(count // len(sums) * len(sums), count):
        accumulate(sums[i % len(sums)], part(i), lanes)
    result = load(sums[0], 0, lanes)
    for total in sums[1:]:
        result = result + load(total, 0, lanes)
    return bind(result)


def _across(vector: Any, lanes: int) -> Any:
    """The sum of a vector's lanes."""
    scratch = register(lanes, vector)
    width = lanes
    while width > 1:
        width //= 2
        half = load(scratch, 0, width) + load(scratch, width, width)
        T.buffer_store(scratch, half, [0 if width == 1 else T.ramp(0, 1, width)])
    return bind(scratch[0])
