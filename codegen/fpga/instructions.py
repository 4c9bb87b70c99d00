"""The instructions of the three engines, and how they are encoded: eight words of 32 bits, see rtl/*.v for their fields."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Semaphores. Each "full" one is given by the engine that fills a buffer and taken by the one that reads it; "free" the other way round.
IN_FULL, IN_FREE, W_FULL, W_FREE, ACC_FULL, ACC_FREE, OUT_FULL, OUT_FREE = range(8)

INPUT, WEIGHT, PARAMETER, RESIDUAL = range(4)  # buffers of the load engine

WORDS = 8  # of an instruction


@dataclass(frozen=True, slots=True)
class Load:
    """A burst from memory (byte address, beats) into a buffer, from word `place` on; group: which lanes of an input word."""

    buffer: int
    address: int
    beats: int
    place: int
    group: int = 0
    wait: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Execute:
    """One output tile over `taps` = (input blocks, filter rows, filter columns), all weights of which lie from `weights` on.

    size: (rows, columns) of the tile; steps: input words between its rows and columns; pitches: input words between
    (input blocks, filter rows, filter columns). period: cycles per tap. set: the first tap replaces what is accumulated;
    maximum: the larger value is kept instead of the sum.
    """

    inputs: int
    weights: int
    bank: int
    taps: tuple[int, int, int]
    pitches: tuple[int, int, int]
    size: tuple[int, int]
    steps: tuple[int, int]
    period: int
    set: bool = True
    maximum: bool = False
    wait: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Store:
    """Rows of an output tile, requantised and clamped to [low, high], to memory at `address`, `pitch` bytes between rows.

    beats: per row. A residual is added where `residual_multiplier` is not 0: from word `residual` on, `residual_pitch` between rows.
    """

    bank: int
    address: int
    pitch: int
    size: tuple[int, int]
    beats: int
    parameters: int
    shift: int
    low: int
    high: int
    residual: int = 0
    residual_pitch: int = 0
    residual_multiplier: int = 0
    residual_shift: int = 0
    wait: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()


Instruction: TypeAlias = Load | Execute | Store


@dataclass(frozen=True, slots=True)
class Step:
    """What runs between two starts of the accelerator: one program per engine. Memory is consistent after it."""

    loads: tuple[Load, ...]
    executes: tuple[Execute, ...]
    stores: tuple[Store, ...]

    @property
    def programs(self) -> tuple[tuple[Instruction, ...], ...]:
        return self.loads, self.executes, self.stores


def encode(instruction: Instruction) -> NDArray[np.uint32]:
    """The eight words of an instruction."""
    head = _mask(instruction.wait) | _mask(instruction.signal) << 8
    if isinstance(instruction, Load):
        words = _load(instruction)
    else:
        words = _execute(instruction) if isinstance(instruction, Execute) else _store(instruction)
    words[0] |= head
    return np.array(words + [0] * (WORDS - len(words)), dtype=np.uint32)


def _mask(semaphores: Iterable[int]) -> int:
    mask = 0
    for s in semaphores:
        mask |= 1 << s
    return mask


def _pair(low: int, high: int) -> int:
    assert max(low, high) < 65536, (low, high)
    return low | high << 16


def _load(i: Load) -> list[int]:
    return [i.buffer << 16 | i.group << 24, i.address, i.beats, i.place]


def _execute(i: Execute) -> list[int]:
    blocks, ky, kx = i.taps
    rows, columns = i.size
    return [
        int(i.set) << 16 | int(i.maximum) << 17 | i.bank << 18,
        _pair(i.inputs, i.weights),
        _pair(i.pitches[0], i.pitches[1]),
        _pair(i.steps[0], i.steps[1] | i.pitches[2] << 8),
        _pair(columns - 1, rows - 1),
        _pair(kx - 1 | (ky - 1) << 8, blocks - 1),
        i.period - 1,
    ]


def _store(i: Store) -> list[int]:
    rows, columns = i.size
    return [
        i.bank << 16 | int(i.residual_multiplier != 0) << 17,
        i.address,
        i.pitch,
        _pair(columns - 1, rows - 1),
        i.shift | i.residual_shift << 8 | (i.low & 255) << 16 | (i.high & 255) << 24,
        _pair(i.residual, i.residual_pitch),
        _pair(i.residual_multiplier, i.parameters),
        i.beats,
    ]
