"""The backend of OpenCL GPUs: this machine's device, or source for a named one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from billhook.codegen.backend import Built, Choices, Constraints, Timer
from billhook.codegen.bundle_manifest import Manifest, TargetPart
from billhook.codegen.cpu.candidate import Candidate
from billhook.ir.errors import DeviceError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.memory import arena_bytes
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .artifact import OpenClArtifact, profile
from .build import build, candidates, compile_candidate
from .devices import LOCAL, gpu_of, is_processor, local_device, opencl_target
from .host_parts import add_host
from .program import load_program
from .timer import OpenClTimer


class OpenClBackend:
    """Kernels in OpenCL C, run through the installed driver."""

    name = "opencl"

    @property
    def provenance(self) -> Provenance | None:
        """A GPU's own clock, or the host's where the driver is PoCL on the processor."""
        return "host" if is_processor(local_device()) else "device"

    def target(self, device: str, threads: int) -> Target:
        found = opencl_target(device or LOCAL)
        gpu_of(found)
        return found

    def device(self, target: Target) -> str:
        return f"OpenCL {gpu_of(target).name}"

    def constraints(self, target: Target) -> Constraints:
        gpu = gpu_of(target)
        limits = {
            "work_items_of_a_group": gpu.group,
            "local_memory_bytes": gpu.local_bytes,
            "buffer_bytes": gpu.buffer_bytes,
            "memory_bytes": gpu.memory_bytes,
        }
        return Constraints(target.width_step, gpu.name, {name: amount for name, amount in limits.items() if amount})

    def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
        return candidates(workload, target)

    def lower(self, workload: Workload, candidate: Candidate, target: Target) -> Any:
        return compile_candidate(workload, candidate, gpu_of(target), "kernel").devices

    def timer(self, target: Target, core: int | None) -> Timer:
        if target.mcpu != LOCAL:
            raise DeviceError(
                f"{gpu_of(target).name} is not on this machine, so nothing can be timed on it; compile for opencl here,"
                " or build for it from static ranks with billhook.codegen.opencl.build"
            )
        return OpenClTimer(target, self.provenance or "host")

    def build(self, network: Network, choices: Choices, target: Target) -> OpenClArtifact:
        return OpenClArtifact(build(network, choices, target), tuple(k.name for k in network.kernels))

    def activation_bytes(self, network: Network) -> int:
        return arena_bytes(network)

    def profile(self, built: Built, tensors: Sequence[torch.Tensor]) -> tuple[tuple[str, Latency], ...]:
        return tuple(profile(cast("OpenClArtifact", built), tensors, self.provenance or "host"))

    def write_parts(self, built: Built, target: Target, stage: Path) -> TargetPart:
        program = cast("OpenClArtifact", built).program
        (stage / "lib").mkdir()
        program.save(stage / "lib")
        add_host(stage)
        return TargetPart(kind="opencl", mcpu=program.gpu.name, architecture="opencl", features=(), threads=target.threads)

    def load(self, bundle: Path, manifest: Manifest) -> Built:
        return OpenClArtifact(load_program(bundle / "lib"), ())


BACKEND = OpenClBackend()
