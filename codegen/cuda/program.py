"""A compiled network for a GPU: the sequence of its kernel launches, where its values lie, and the machine code. Needs no TVM."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import torch as _safetensors

from billhook.codegen.gpu.launch import LaunchSequence, sequence_from_data, sequence_to_data
from billhook.ir.errors import BundleError

safetensors: Any = _safetensors
_VERSION = 1
_FILES = _MANIFEST, _CONSTANTS, _IMAGE = "program.json", "constants.safetensors", "kernels.fatbin"


@dataclass(frozen=True)
class CudaProgram(LaunchSequence):
    """A launch sequence with its machine code. image: a fat binary for all of `architectures`."""

    image: bytes
    architectures: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"cuda program for {', '.join(self.architectures)}: {len(self.launches)} launches, arena {self.arena_bytes} bytes"]
        lines += [f"  {n.symbol}<<<{n.grid}, {n.block}, {n.shared_bytes}>>>({', '.join(n.arguments)})" for n in self.launches]
        return "\n".join(lines)

    def save(self, folder: str | Path) -> None:
        """Write three files into a new folder. BundleError if it cannot be written."""
        goal = Path(folder)
        manifest = {"version": _VERSION, "architectures": self.architectures, **sequence_to_data(self)}
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
    sequence = sequence_from_data(data, safetensors.load_file(source / _CONSTANTS))
    return CudaProgram(
        sequence.inputs, sequence.outputs, sequence.launches, sequence.offsets, sequence.arena_bytes, sequence.constants,
        image=(source / _IMAGE).read_bytes(), architectures=tuple(data["architectures"]),
    )  # fmt: skip
