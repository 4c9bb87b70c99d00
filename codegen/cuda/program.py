"""A compiled network for a GPU: the sequence of its kernel launches, where its values lie, and the machine code. Needs no TVM."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as _safetensors

from billhook.ir.errors import BundleError
from billhook.ir.workload import TensorType

safetensors: Any = _safetensors
_VERSION = 1
_FILES = _MANIFEST, _CONSTANTS, _IMAGE = "program.json", "constants.safetensors", "kernels.fatbin"


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: the kernel's symbol, blocks and threads along x, y and z, and the values whose addresses it takes, in order."""

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[str, ...]
    shared_bytes: int = 0  # dynamic shared memory
    kernel: str = ""  # the network's kernel that it belongs to


@dataclass(frozen=True)
class CudaProgram:
    """Launches in order; every value is an input, a constant, or lies at an offset (bytes) of one arena.

    outputs: (value, type), an output may be an input or a constant; image: a fat binary for all of `architectures`.
    """

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    launches: tuple[Launch, ...]
    offsets: Mapping[str, int]
    arena_bytes: int
    constants: Mapping[str, torch.Tensor]
    image: bytes
    architectures: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"cuda program for {', '.join(self.architectures)}: {len(self.launches)} launches, arena {self.arena_bytes} bytes"]
        lines += [f"  {n.symbol}<<<{n.grid}, {n.block}, {n.shared_bytes}>>>({', '.join(n.arguments)})" for n in self.launches]
        return "\n".join(lines)

    def save(self, folder: str | Path) -> None:
        """Write three files into a new folder. BundleError if it cannot be written."""
        goal = Path(folder)
        manifest = {
            "version": _VERSION,
            "architectures": self.architectures,
            "inputs": [[n, asdict(t)] for n, t in self.inputs],
            "outputs": [[n, asdict(t)] for n, t in self.outputs],
            "launches": [asdict(launch) for launch in self.launches],
            "offsets": dict(self.offsets),
            "arena_bytes": self.arena_bytes,
        }
        try:
            goal.mkdir(parents=True)
            (goal / _IMAGE).write_bytes(self.image)
            safetensors.save_file({k: v.contiguous().clone() for k, v in self.constants.items()}, goal / _CONSTANTS)
            (goal / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")  # last: it makes the folder valid
        except OSError as error:
            raise BundleError(f"cannot write '{goal}': {error.strerror or error}") from error


def load_program(folder: str | Path) -> CudaProgram:
    """The program that `CudaProgram.save` wrote. BundleError if a file is missing or of another version."""
    source = Path(folder)
    missing = next((name for name in _FILES if not (source / name).is_file()), None)
    if missing is not None:
        raise BundleError(f"'{source}' is no CUDA program: it has no {missing}; save it again")
    try:
        data = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"'{source / _MANIFEST}' is damaged: {error}; save the program again") from error
    if data.get("version") != _VERSION:
        raise BundleError(f"'{source}' has version {data.get('version')}, this one reads {_VERSION}; save the program again")
    return CudaProgram(
        inputs=tuple((n, _type(t)) for n, t in data["inputs"]),
        outputs=tuple((n, _type(t)) for n, t in data["outputs"]),
        launches=tuple(_launch(launch) for launch in data["launches"]),
        offsets=data["offsets"],
        arena_bytes=data["arena_bytes"],
        constants=safetensors.load_file(source / _CONSTANTS),
        image=(source / _IMAGE).read_bytes(),
        architectures=tuple(data["architectures"]),
    )


def _type(data: dict[str, Any]) -> TensorType:
    return TensorType(tuple(data["shape"]), data["dtype"], 0)


def _launch(data: dict[str, Any]) -> Launch:
    grid, block = _extents(data["grid"]), _extents(data["block"])
    return Launch(data["symbol"], grid, block, tuple(data["arguments"]), data["shared_bytes"], data["kernel"])


def _extents(numbers: list[int]) -> tuple[int, int, int]:
    x, y, z = numbers
    return x, y, z
