"""Backends: what a kind of hardware provides, so that the compiler, the cost model and the bundle need not know it.

A new one is a folder with these verbs and a line in `_FOLDERS`. CONTRIBUTING.md shows a whole backend in a few lines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from billhook.ir.errors import OptionError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .bundle_manifest import Manifest, TargetPart
from .cpu.candidate import Candidate

Choices: TypeAlias = Mapping[Workload, Candidate]


@dataclass(frozen=True, slots=True)
class Measured:
    """The fastest correct candidate of a workload, its latency, and the candidates that failed with the reason of each."""

    workload: Workload
    candidate: Candidate
    latency: Latency
    rejected: tuple[tuple[Candidate, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a target asks of networks: widths are best multiples of width_step; limits: named amounts of what is scarce.

    device: whose limits they are.
    """

    width_step: int
    device: str
    limits: Mapping[str, int]

    def __str__(self) -> str:
        listed = ", ".join(f"{name.replace('_', ' ')} {amount}" for name, amount in self.limits.items())
        return f"{self.device}: widths in steps of {self.width_step}" + (f"; {listed}" if listed else "")


class Built(Protocol):
    """A compiled network. kernels: their names in execution order; threads: of one inference."""

    @property
    def kernels(self) -> tuple[str, ...]: ...
    @property
    def threads(self) -> int: ...

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs for logical inputs in torch's order."""
        ...

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        """A call without arguments that runs one inference on these inputs: for timing."""
        ...


class Timer(Protocol):
    """Times candidates of kernels, each built and checked against torch first."""

    def measure_candidates(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        """The fastest correct candidate. MeasureError if there is none, DeviceError where the device is gone."""
        ...

    def close(self) -> int: ...


class Backend(Protocol):
    """A kind of hardware. provenance: what its latencies are; None where it can run networks, but no time of it means anything."""

    @property
    def name(self) -> str: ...
    @property
    def provenance(self) -> Provenance | None: ...

    def target(self, device: str, threads: int) -> Target:
        """The target called "name:device", or "name" where `device` is empty. OptionError if it is unknown."""
        ...

    def device(self, target: Target) -> str:
        """What measured samples are filed under, besides the target."""
        ...

    def constraints(self, target: Target) -> Constraints: ...

    def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
        """Ways to make a kernel, the statically most promising first; () for a workload that the target cannot run."""
        ...

    def lower(self, workload: Workload, candidate: Candidate, target: Target) -> Any:
        """The kernel as TVM has it before machine code is made. MeasureError if it cannot be made, or exceeds a limit."""
        ...

    def timer(self, target: Target, core: int | None) -> Timer:
        """A timer; core: the processor core that it may use, None for all."""
        ...

    def build(self, network: Network, choices: Choices, target: Target) -> Built:
        """Compile a network from the chosen candidates. MeasureError naming the kernel that cannot be made or has no choice."""
        ...

    def activation_bytes(self, network: Network) -> int:
        """Bytes that the values between kernels, outputs included, take in a build; known without making any kernel."""
        ...

    def profile(self, built: Built, tensors: Sequence[torch.Tensor]) -> tuple[tuple[str, Latency], ...]:
        """(kernel name, time inside the network) in execution order."""
        ...

    def write_parts(self, built: Built, target: Target, stage: Path) -> TargetPart:
        """Write what a bundle needs to run without Python: lib/ and runner/. The folder exists; `lib` is made here."""
        ...

    def load(self, bundle: Path, manifest: Manifest) -> Built:
        """The network of a bundle, to be verified here. BundleError if this machine cannot run it."""
        ...


_FOLDERS = {"llvm": "backend_cpu", "cpu": "backend_cpu", "cuda": "cuda.backend", "opencl": "opencl.backend", "arm64": "arm.backend"}


def backend_named(name: str) -> Backend:
    """The backend of this name, loaded when first asked for. OptionError if there is none."""
    if name not in _FOLDERS:
        raise OptionError(f"target {name!r} is not supported yet; use one of {', '.join(_FOLDERS)}")
    backend: Backend = import_module(f"{__package__}.{_FOLDERS[name]}").BACKEND
    return backend


def backend_of(target: Target) -> Backend:
    """The backend that makes a target's kernels."""
    return backend_named("arm64" if target.triple.startswith("aarch64") else target.kind)


def target_named(text: str, threads: int = 1) -> Target:
    """A target by its text: "llvm" (this processor), "opencl" (this machine's GPU), "opencl:mali-g71". OptionError if unknown."""
    name, _, device = text.partition(":")
    return backend_named(name).target(device, threads)
