"""Building a network for a GPU of NVIDIA's: its launch sequence, and one fat binary of its kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from billhook.codegen.gpu.chain import chain, compile_all
from billhook.codegen.gpu.hardware import Gpu
from billhook.codegen.gpu.kernel import device_source
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .fatbin import ARCHITECTURES, compile_fatbin
from .program import CudaProgram

_UNITS = {"sm_80": 108, "sm_90": 132}  # A100, H100 and H200
_DEFAULT = "sm_90"


@dataclass(frozen=True)
class Built:
    """A program, its CUDA source, and per "symbol@architecture" what ptxas reports: registers and spilled bytes."""

    program: CudaProgram
    source: str
    usage: Mapping[str, Mapping[str, int]]


def build(
    network: Network, target: Target, architectures: Sequence[str] = ARCHITECTURES, ranks: Mapping[Workload, int] | None = None
) -> Built:
    """Compile a network whose tensors are all row-major (a partition for a target without channel blocks).

    ranks: for a workload, which of its statically ranked tiles to take (0 where it has no entry), as timing found it.
    MeasureError naming the kernel if one cannot be made.
    """
    program, source = generate(network, target, ranks)
    image, usage = compile_fatbin(source, architectures)
    return Built(replace(program, image=image, architectures=tuple(architectures)), source, usage)


def generate(network: Network, target: Target, ranks: Mapping[Workload, int] | None = None) -> tuple[CudaProgram, str]:
    """The program without machine code, and its CUDA source. Needs no nvcc."""
    gpu = gpu_of(target)
    kernels = compile_all(network, gpu, ranks or {})
    sequence = chain(network, kernels)
    program = CudaProgram(
        sequence.inputs, sequence.outputs, sequence.launches, sequence.offsets, sequence.arena_bytes, sequence.constants, b"", ()
    )
    return program, device_source(kernels.values(), gpu)


def gpu_of(target: Target) -> Gpu:
    """The GPU that schedules are chosen for; the binary holds other architectures as well."""
    architecture = target.mcpu or _DEFAULT
    units = _UNITS.get(architecture, _UNITS[_DEFAULT])
    return Gpu(f"CUDA {architecture}", "cuda", units, group=1024, local_bytes=48 << 10, warp=32, architecture=architecture)
