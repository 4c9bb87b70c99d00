"""What the host computes between the accelerator's layers, in integers: the references that driver/host_steps.c equals bit by bit.

Maps are int8 [C, H, W]. Divisions round down; (x + half) >> shift rounds to nearest, halves up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .layer import Int8, Layer, run_layer

NORM_BITS = 12  # fraction bits of a normalised value
EXP_STEPS = 64  # entries of the table of exponentials per unit
EXP_ENTRIES = 1024
MEAN_BITS = 8  # fraction bits of a weighted mean
EXPONENTIALS = np.round(np.exp(-np.arange(EXP_ENTRIES) / EXP_STEPS) * 65535).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Elements of a gathered map that come from one source. index: flat position in the source, or -1; table: of the 256 values."""

    source: str
    index: NDArray[np.int32]
    table: Int8


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """Moves, concatenations and functions of single values: element i is table[source[index[i]]] of its part."""

    name: str
    output: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Layer normalisation over the channels of every pixel. epsilon: in units of (channels * int8) squared."""

    name: str
    source: str
    output: str
    gain: NDArray[np.int32]
    offset: NDArray[np.int64]
    shift: int
    epsilon: int


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """softmax(q k^T) v. Maps are [heads, tokens, head width]. Scores are scaled to table steps by (score * step) >> step_shift."""

    name: str
    query: str
    key: str
    value: str
    output: str
    step: int
    step_shift: int
    multiplier: int
    shift: int


HostOperation: TypeAlias = Gather | Norm | Attention
Operation: TypeAlias = Layer | HostOperation


def sources(operation: Operation) -> tuple[str, ...]:
    """The maps that an operation reads."""
    if isinstance(operation, Layer):
        return (operation.source,) if operation.residual is None else (operation.source, operation.residual)
    if isinstance(operation, Gather):
        return tuple(p.source for p in operation.parts)
    return (operation.source,) if isinstance(operation, Norm) else (operation.query, operation.key, operation.value)


def run_operation(operation: Operation, maps: Mapping[str, Int8], shape: tuple[int, int, int]) -> Int8:
    """The operation's output, of this shape. Pure, integers only."""
    if isinstance(operation, Layer):
        return run_layer(operation, maps[operation.source], maps[operation.residual] if operation.residual is not None else None)
    if isinstance(operation, Gather):
        return _gather(operation, maps, shape)
    return _norm(operation, maps) if isinstance(operation, Norm) else _attention(operation, maps)


def _gather(operation: Gather, maps: Mapping[str, Int8], shape: tuple[int, int, int]) -> Int8:
    out = np.zeros(shape, dtype=np.int8).reshape(-1)
    for part in operation.parts:
        here = part.index >= 0
        values = maps[part.source].reshape(-1)[part.index[here]]
        out[here] = part.table[values.astype(np.int64) + 128]
    return out.reshape(shape)


def _norm(operation: Norm, maps: Mapping[str, Int8]) -> Int8:
    x = maps[operation.source].astype(np.int64)
    channels = len(x)
    total, squares = x.sum(0), (x * x).sum(0)
    variance = channels * squares - total * total + operation.epsilon
    root = np.vectorize(lambda v: isqrt(int(v) << 16), otypes=[np.int64])(variance)
    normed = (((x * channels - total) << NORM_BITS + 8) + root // 2) // root
    out = normed * operation.gain[:, None, None].astype(np.int64) + operation.offset[:, None, None]
    return _clamped((out + (1 << operation.shift - 1)) >> operation.shift)


def _attention(operation: Attention, maps: Mapping[str, Int8]) -> Int8:
    q, k, v = (maps[n].astype(np.int64) for n in (operation.query, operation.key, operation.value))
    scores = q @ k.transpose(0, 2, 1)
    steps = ((scores.max(-1, keepdims=True) - scores) * operation.step) >> operation.step_shift
    weights = np.where(steps < EXP_ENTRIES, EXPONENTIALS[np.minimum(steps, EXP_ENTRIES - 1)], 0)
    mean = ((weights @ v) << MEAN_BITS) // weights.sum(-1, keepdims=True)
    return _clamped((mean * operation.multiplier + (1 << operation.shift - 1)) >> operation.shift)


def _clamped(values: NDArray[np.int64]) -> Int8:
    return np.clip(values, -128, 127).astype(np.int8)
