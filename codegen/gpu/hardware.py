"""What a GPU can hold and run at once: the limits that kernels are made for and checked against."""

from collections.abc import Iterable
from dataclasses import dataclass

from billhook.ir.errors import MeasureError

from .launch import Launch


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or the least that a family of them guarantees.

    kind: TVM's target kind; architecture: "sm_90" and the like, "" where the driver compiles; units: multiprocessors (OpenCL: compute
    units); group: most threads of a block; local_bytes: local (CUDA: shared) memory of a block; warp: threads in lockstep; buffer_bytes:
    largest single buffer, memory_bytes: all of them together, 0 where not limited here.
    """

    name: str
    kind: str
    units: int
    group: int
    local_bytes: int
    warp: int
    architecture: str = ""
    buffer_bytes: int = 0
    memory_bytes: int = 0


def check_launches(launches: Iterable[Launch], local: int, gpu: Gpu) -> None:
    """MeasureError where a launch exceeds the work-group limit, or `local` bytes of static local memory the GPU's."""
    for launch in launches:
        if launch.threads > gpu.group:
            raise MeasureError(
                f"kernel {launch.symbol} has work-groups of {launch.threads} work-items, {gpu.name} allows {gpu.group};"
                " choose a candidate with a smaller tile or group"
            )
    if local > gpu.local_bytes:
        raise MeasureError(
            f"a kernel needs {local} bytes of local memory per work-group, {gpu.name} has {gpu.local_bytes}; choose a smaller tile"
        )


def check_memory(buffers: Iterable[tuple[str, int]], gpu: Gpu) -> None:
    """MeasureError where one of the (name, bytes) buffers, or all together, are more than the GPU takes."""
    total = 0
    for name, size in buffers:
        total += size
        if gpu.buffer_bytes and size > gpu.buffer_bytes:
            raise MeasureError(
                f"'{name}' takes {size} bytes, one buffer of {gpu.name} at most {gpu.buffer_bytes}; use a smaller input or prune more"
            )
    if gpu.memory_bytes and total > gpu.memory_bytes:
        raise MeasureError(
            f"the network takes {total} bytes, {gpu.name} gives {gpu.memory_bytes}; use a smaller batch or input, or prune more"
        )
