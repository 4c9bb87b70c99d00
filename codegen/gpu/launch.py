"""What a GPU program is whatever the language of its kernels: a sequence of launches, and where its values lie. Needs no TVM."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from billhook.ir.workload import TensorType


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: the kernel's symbol, blocks and threads along x, y and z, and the values whose addresses it takes, in order."""

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[str, ...]
    shared_bytes: int = 0  # dynamic shared memory
    kernel: str = ""  # the network's kernel that it belongs to

    @property
    def threads(self) -> int:
        """Threads of a block (OpenCL: work-items of a group)."""
        x, y, z = self.block
        return x * y * z


@dataclass(frozen=True)
class LaunchSequence:
    """Launches in order; every value is an input, a constant, or lies at an offset (bytes) of one arena.

    outputs: (value, type); an output may be an input or a constant.
    """

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    launches: tuple[Launch, ...]
    offsets: Mapping[str, int]
    arena_bytes: int
    constants: Mapping[str, torch.Tensor]


def sequence_to_data(sequence: LaunchSequence) -> dict[str, Any]:
    """All but the constants, as JSON takes it."""
    return {
        "inputs": [[n, asdict(t)] for n, t in sequence.inputs],
        "outputs": [[n, asdict(t)] for n, t in sequence.outputs],
        "launches": [asdict(launch) for launch in sequence.launches],
        "offsets": dict(sequence.offsets),
        "arena_bytes": sequence.arena_bytes,
    }


def sequence_from_data(data: Mapping[str, Any], constants: Mapping[str, torch.Tensor]) -> LaunchSequence:
    """Inverse of `sequence_to_data`. KeyError, TypeError or ValueError if a part is missing or misshapen."""
    return LaunchSequence(
        inputs=tuple((n, _type(t)) for n, t in data["inputs"]),
        outputs=tuple((n, _type(t)) for n, t in data["outputs"]),
        launches=tuple(_launch(launch) for launch in data["launches"]),
        offsets=data["offsets"],
        arena_bytes=data["arena_bytes"],
        constants=constants,
    )


def _type(data: dict[str, Any]) -> TensorType:
    return TensorType(tuple(data["shape"]), data["dtype"], 0)


def _launch(data: dict[str, Any]) -> Launch:
    grid, block = _extents(data["grid"]), _extents(data["block"])
    return Launch(data["symbol"], grid, block, tuple(data["arguments"]), data["shared_bytes"], data["kernel"])


def _extents(numbers: list[int]) -> tuple[int, int, int]:
    x, y, z = numbers
    return x, y, z
