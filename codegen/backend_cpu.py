"""The backend of this machine's processor: templates and generated kernels in one shared library, run by TVM's virtual machine."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from billhook.ir.errors import BundleError, OptionError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.network import Network
from billhook.ir.planfile import versions
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import lower
from .artifact import Artifact, load_artifact
from .backend import Built, Choices, Constraints, Timer
from .build import build
from .bundle_machine import architecture, check_machine, required_features
from .bundle_manifest import LIBRARY, Manifest, TargetPart
from .bundle_runtime import add_runtime
from .cpu.candidate import Candidate
from .host import host_target
from .memory_plan import activation_bytes
from .profile import profile
from .timer import KernelTimer

RUNTIME = ("apache-tvm", "apache-tvm-ffi")
_STDERR = 2


class CpuBackend:
    """Kernels for the processor that this process runs on."""

    name = "llvm"
    provenance: Provenance | None = "host"

    def target(self, device: str, threads: int) -> Target:
        if device:
            raise OptionError(f"target llvm:{device}: llvm is this machine's processor and takes no name; use arm64:{device} or --device")
        return host_target(threads)

    def device(self, _target: Target) -> str:
        return ""  # the processor itself, which samples are filed under anyway

    def constraints(self, target: Target) -> Constraints:
        return Constraints(
            target.width_step, target.mcpu or "this processor", {"vector_registers": target.registers, "lanes": target.lanes}
        )

    def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
        return lower.candidates(workload, target)

    def lower(self, workload: Workload, candidate: Candidate, target: Target) -> Any:
        return lower.lower(workload, candidate, target)

    def timer(self, target: Target, core: int | None) -> Timer:
        return KernelTimer(target, core=core)

    def build(self, network: Network, choices: Choices, target: Target) -> Artifact:
        return build(network, choices, target)

    def activation_bytes(self, network: Network) -> int:
        return activation_bytes(network)

    def profile(self, built: Built, tensors: Sequence[torch.Tensor]) -> tuple[tuple[str, Latency], ...]:
        return profile(cast("Artifact", built), *tensors)

    def write_parts(self, built: Built, target: Target, stage: Path) -> TargetPart:
        artifact = cast("Artifact", built)
        made_for = write_library(artifact, stage)
        add_runtime(stage, made_for)
        features = tuple(sorted({*required_features(target), *artifact.features}))
        return TargetPart(kind=target.kind, mcpu=target.mcpu, architecture=made_for, features=features, threads=target.threads)

    def load(self, bundle: Path, manifest: Manifest) -> Built:
        check_machine(manifest.target.architecture, manifest.target.features)
        check_runtime(manifest.versions)
        with silent_runtime():
            return load_artifact(bundle / LIBRARY)


def write_library(artifact: Artifact, stage: Path) -> str:
    """Write the network's library into a bundle; the architecture that it is for."""
    library = stage / LIBRARY
    library.parent.mkdir()
    with silent_runtime():
        artifact.export(library)
    return architecture(library)


@contextmanager
def silent_runtime() -> Generator[None]:
    """TVM 0.27 prints a left-over debug line for every constant that it saves or loads, from C++ and thus to the file descriptor."""
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)


def check_runtime(made_with: Mapping[str, str]) -> None:
    """The library's byte code belongs to one release of TVM; post-releases of it are equal."""
    here = versions(*RUNTIME)
    for package in RUNTIME:
        wanted = made_with.get(package, "unknown")
        if wanted.split(".post")[0] != here[package].split(".post")[0]:
            remedy = f"install {package}=={wanted}, or use the C++ runner, which has its own"
            raise BundleError(f"the bundle was made with {package} {wanted}, {here[package]} is installed; {remedy}")


BACKEND = CpuBackend()
