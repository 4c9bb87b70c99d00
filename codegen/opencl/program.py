"""A compiled network for OpenCL: launches, source and constants, in files that a C++ host reads. Needs no TVM."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from billhook.codegen.gpu.hardware import Gpu
from billhook.codegen.gpu.launch import LaunchSequence, sequence_from_data, sequence_to_data
from billhook.ir.errors import BundleError

KERNELS, LAUNCHES, WEIGHTS, SEQUENCE = "kernels.cl", "launches.txt", "weights.bin", "sequence.json"
_FILES = KERNELS, LAUNCHES, WEIGHTS, SEQUENCE
_VERSION = 1
_ALIGNMENT = 64  # bytes of a constant's place in the file of weights


@dataclass(frozen=True)
class OpenClProgram(LaunchSequence):
    """A launch sequence with its OpenCL C source. gpu: what it was made for; local_bytes: most local memory of a work-group."""

    source: str
    gpu: Gpu
    local_bytes: int

    def __str__(self) -> str:
        lines = [f"opencl program for {self.gpu.name}: {len(self.launches)} launches, arena {self.arena_bytes} bytes"]
        lines += [f"  {n.symbol} groups {n.grid} of {n.block}: {', '.join(n.arguments)}" for n in self.launches]
        return "\n".join(lines)

    def buffers(self) -> list[tuple[str, int]]:
        """(name, bytes) of every buffer that running it takes."""
        sizes = [(name, numel(kind.shape) * size_of(kind.dtype)) for name, kind in self.inputs]
        return [*sizes, ("intermediate values", self.arena_bytes), *((name, c.nbytes) for name, c in self.constants.items())]

    def save(self, folder: Path) -> None:
        """Write the four files into an existing folder. BundleError if that fails."""
        places, weights = _pack(self)
        data = {"version": _VERSION, "gpu": _gpu_data(self.gpu), "local_bytes": self.local_bytes, **sequence_to_data(self)}
        data["constants"] = [[n, str(c.dtype).removeprefix("torch."), list(c.shape), places[n]] for n, c in self.constants.items()]
        try:
            (folder / KERNELS).write_text(self.source, encoding="utf-8")
            (folder / WEIGHTS).write_bytes(weights)
            (folder / LAUNCHES).write_text(_lines(self, places), encoding="utf-8")
            (folder / SEQUENCE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise BundleError(f"cannot write '{folder}': {error.strerror or error}") from error


def load_program(folder: Path) -> OpenClProgram:
    """The program that `OpenClProgram.save` wrote. BundleError if a file is missing, damaged or of another version."""
    missing = next((name for name in _FILES if not (folder / name).is_file()), None)
    if missing is not None:
        raise BundleError(f"'{folder}' is no OpenCL program: it has no {missing}; save it again")
    try:
        data = json.loads((folder / SEQUENCE).read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            raise BundleError(f"'{folder}' has version {data['version']}, this one reads {_VERSION}; save the program again")
        weights = (folder / WEIGHTS).read_bytes()
        constants = {name: _constant(weights, dtype, shape, offset) for name, dtype, shape, offset in data["constants"]}
        s = sequence_from_data(data, constants)
        gpu, local = Gpu(**data["gpu"]), int(data["local_bytes"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"'{folder / SEQUENCE}' is damaged: {error}; save the program again") from error
    source = (folder / KERNELS).read_text(encoding="utf-8")
    return OpenClProgram(s.inputs, s.outputs, s.launches, s.offsets, s.arena_bytes, s.constants, source, gpu, local)


def size_of(dtype: str) -> int:
    """Bytes of an element."""
    return int(getattr(torch, dtype).itemsize)


def numel(shape: tuple[int, ...]) -> int:
    """Elements of a tensor."""
    return int(np.prod(shape, dtype=np.int64))


def _constant(weights: bytes, dtype: str, shape: list[int], offset: int) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    count = numel(tuple(shape))
    if offset + count * kind.itemsize > len(weights):
        raise ValueError(f"{WEIGHTS} is too short")
    if count == 0:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(weights[offset : offset + count * kind.itemsize]), dtype=kind).reshape(shape)


def _pack(program: OpenClProgram) -> tuple[dict[str, int], bytes]:
    """Where each constant begins in the file of weights, and the file."""
    places: dict[str, int] = {}
    content = bytearray()
    for name, constant in program.constants.items():
        content += bytes(-len(content) % _ALIGNMENT)
        places[name] = len(content)
        content += constant.detach().contiguous().numpy().tobytes()
    return places, bytes(content)


def _lines(program: OpenClProgram, places: dict[str, int]) -> str:
    """What the C++ host reads: values by number, one line each, then the launches."""
    numbers: dict[str, int] = {}
    lines = [f"billhook-opencl {_VERSION}", f"arena {program.arena_bytes}"]

    def value(kind: str, name: str, *fields: int) -> None:
        numbers[name] = len(numbers)
        lines.append(" ".join([kind, *map(str, fields)]))

    for name, given in program.inputs:
        value("input", name, numel(given.shape) * size_of(given.dtype))
    for name, constant in program.constants.items():
        value("constant", name, places[name], constant.nbytes)
    for name, offset in program.offsets.items():
        value("value", name, offset)
    for launch in program.launches:
        grid = [groups * items for groups, items in zip(launch.grid, launch.block, strict=True)]
        lines.append(" ".join(map(str, ["launch", launch.symbol, *grid, *launch.block, *(numbers[a] for a in launch.arguments)])))
    for name, given in program.outputs:
        lines.append(f"output {numbers[name]} {numel(given.shape) * size_of(given.dtype)}")
    return "\n".join(lines) + "\n"


def _gpu_data(gpu: Gpu) -> dict[str, Any]:
    return {name: getattr(gpu, name) for name in Gpu.__slots__}
