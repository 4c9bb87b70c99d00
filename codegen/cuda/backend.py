"""The backend of NVIDIA GPUs: networks are built anywhere, run and timed where the driver is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from billhook.codegen.backend import Built, Choices, Constraints, Timer
from billhook.codegen.bundle_manifest import Manifest, TargetPart
from billhook.codegen.cpu.candidate import Candidate, candidate
from billhook.codegen.gpu.hardware import check_launches
from billhook.codegen.gpu.kernel import compile_kernel
from billhook.codegen.gpu.tile import TILES
from billhook.ir.errors import BundleError, MeasureError, OptionError, ToolchainError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.memory import arena_bytes
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .build import build, gpu_of
from .driver import Driver
from .fatbin import ARCHITECTURES
from .program import CudaProgram
from .session import Session

NAME = "cuda"
_NO_TIMER = "kernels are not timed on a GPU one by one yet: `python -m benchmarks.cuda measure` times whole networks there"


class CudaArtifact:
    """A program, and the session that runs it, begun when it is first needed: building needs no GPU."""

    threads = 1

    def __init__(self, program: CudaProgram, kernels: tuple[str, ...]) -> None:
        self.program, self.kernels = program, kernels
        self._session: Session | None = None

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs for inputs in torch's order."""
        return self.session.run(*map(torch.as_tensor, tensors))

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        """A call that runs one inference on these inputs, up to its end."""
        session = self.session
        session.set_inputs(*map(torch.as_tensor, tensors))
        return lambda: session.time(1)

    @property
    def session(self) -> Session:
        """ToolchainError where there is no driver or GPU."""
        if self._session is None:
            self._session = Session(self.program, Driver())
        return self._session


class CudaBackend:
    """Kernels in CUDA C++, in one fat binary."""

    name = NAME
    provenance: Provenance | None = "device"

    def target(self, device: str, threads: int) -> Target:
        architecture = device or ARCHITECTURES[-1]
        if architecture not in ARCHITECTURES:
            raise OptionError(f"CUDA architecture '{architecture}' is not known; use one of {', '.join(ARCHITECTURES)}")
        return Target(kind="cuda", mcpu=architecture)

    def device(self, target: Target) -> str:
        return gpu_of(target).name

    def constraints(self, target: Target) -> Constraints:
        gpu = gpu_of(target)
        return Constraints(target.width_step, gpu.name, {"threads_of_a_block": gpu.group, "shared_memory_bytes": gpu.local_bytes})

    def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
        if any(t.block for t in (*workload.inputs, workload.output)):
            return ()
        return tuple(candidate(NAME, rank=rank) for rank in range(len(TILES)))

    def lower(self, workload: Workload, candidate: Candidate, target: Target) -> Any:
        gpu = gpu_of(target)
        kernel = compile_kernel(workload, gpu, "kernel", _rank(candidate))
        check_launches(kernel.launches, 0, gpu)
        return kernel.devices

    def timer(self, target: Target, core: int | None) -> Timer:
        raise ToolchainError(_NO_TIMER)

    def build(self, network: Network, choices: Choices, target: Target) -> CudaArtifact:
        ranks = {workload: _rank(chosen) for workload, chosen in choices.items()}
        return CudaArtifact(build(network, target, ranks=ranks).program, tuple(k.name for k in network.kernels))

    def activation_bytes(self, network: Network) -> int:
        return arena_bytes(network)

    def profile(self, built: Built, tensors: Sequence[torch.Tensor]) -> tuple[tuple[str, Latency], ...]:
        raise MeasureError(_NO_TIMER)

    def write_parts(self, built: Built, target: Target, stage: Path) -> TargetPart:
        raise BundleError("a bundle for CUDA has no runner yet; save the program itself: built.program.save(folder)")

    def load(self, bundle: Path, manifest: Manifest) -> Built:
        raise BundleError(f"{bundle}: bundles for CUDA are not supported yet")


def _rank(chosen: Candidate) -> int:
    if chosen.template != NAME:
        raise MeasureError(f"candidate {chosen} is not one of CUDA's; the stored choice is from another version, measure again")
    return chosen["rank"]


BACKEND = CudaBackend()
