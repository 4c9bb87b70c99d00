"""The program of a network: maps and weights placed in memory, layers as steps, in the form that the driver reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .accelerator import Accelerator
from .instructions import Step, encode
from .layout import Bytes
from .shape import MapShape

MAGIC, VERSION, HEAD = 0x50464842, 1, 24
ALIGNMENT = 64


@dataclass(slots=True)
class Image:
    """The accelerator's memory while it is being filled."""

    parts: list[tuple[int, Bytes]] = field(default_factory=list[tuple[int, Bytes]])
    size: int = 0

    def reserve(self, size: int) -> int:
        """The address of so many zero bytes."""
        address = self.size
        self.size += -(-size // ALIGNMENT) * ALIGNMENT
        return address

    def add(self, data: Bytes) -> int:
        """The address of the data."""
        address = self.reserve(data.size)
        self.parts.append((address, data))
        return address

    def bytes(self) -> Bytes:
        memory = np.zeros(self.size, dtype=np.uint8)
        for address, data in self.parts:
            memory[address : address + data.size] = data
        return memory


@dataclass(frozen=True, slots=True)
class PlacedMap:
    """A map in memory; value = scale * int8."""

    shape: MapShape
    address: int
    scale: float

    def words(self, columns: int) -> list[int]:
        s = self.shape
        return [self.address, s.channels, s.height, s.width, s.border, columns]


@dataclass(frozen=True, slots=True)
class HostStep:
    """A step that the driver computes: see driver/host_steps.c."""

    kind: int
    words: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """steps in order, each with the name of what it belongs to; memory: before the first image."""

    accelerator: Accelerator
    steps: tuple[tuple[str, Step | HostStep], ...]
    maps: Mapping[str, PlacedMap]
    input: str
    output: str
    memory: Bytes

    def words(self) -> NDArray[np.uint32]:
        """The program as the driver reads it."""
        body = np.concatenate([_step_words(step) for _, step in self.steps])
        columns = self.accelerator.columns
        given, made = self.maps[self.input], self.maps[self.output]
        head = [MAGIC, VERSION, int(self.accelerator.identification, 16), HEAD + body.size, len(self.steps)]
        head += [*given.words(columns), _float_bits(1.0 / given.scale), *made.words(columns), _float_bits(made.scale)]
        return np.concatenate([np.array(head + [0] * (HEAD - len(head)), dtype=np.uint32), body])

    def accelerated(self) -> tuple[tuple[str, Step], ...]:
        """The accelerator's steps."""
        return tuple((name, step) for name, step in self.steps if isinstance(step, Step))


def _float_bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def _step_words(step: Step | HostStep) -> NDArray[np.uint32]:
    if isinstance(step, HostStep):
        return np.array([step.kind, len(step.words), *step.words], dtype=np.uint32)
    instructions = [encode(i) for program in step.programs for i in program]
    head = [0, 3 + 8 * len(instructions), *(len(program) for program in step.programs)]
    return np.concatenate([np.array(head, dtype=np.uint32), *instructions])
