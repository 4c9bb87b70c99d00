"""The backend of arm64 processors without a device at hand: cross-compiled, executed under qemu, ordered by static estimates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from billhook.codegen import lower
from billhook.codegen.backend import Built, Choices, Constraints, Timer
from billhook.codegen.build import executable
from billhook.codegen.bundle_machine import architecture
from billhook.codegen.bundle_manifest import LIBRARY, VECTOR, Manifest, TargetPart
from billhook.codegen.bundle_runtime import add_runtime
from billhook.codegen.bundle_vector import read_vector
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.cpu.features import INT8_DOT_ARM
from billhook.codegen.memory_plan import activation_bytes
from billhook.ir.errors import BundleError, MeasureError
from billhook.ir.grids import on_grid
from billhook.ir.latency import Latency, Provenance
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import TensorType, Workload

from .artifact import ArmArtifact, EmulatedBundle
from .targets import DEFAULT, PROCESSORS, arm_target, processor_of
from .timer import StaticTimer
from .toolchain import arm_runtime

ARCHITECTURE = "aarch64"


class ArmBackend:
    """Kernels for arm64 Linux, from the processor's templates with four lanes."""

    name = "arm64"
    provenance: Provenance | None = None

    def target(self, device: str, threads: int) -> Target:
        return arm_target(device or DEFAULT, threads)

    def device(self, target: Target) -> str:
        return f"static model of {processor_of(target).scheduled_as}"

    def constraints(self, target: Target) -> Constraints:
        name = next((n for n, p in PROCESSORS.items() if p.mcpu == target.mcpu), target.mcpu)
        return Constraints(target.width_step, name, {"vector_registers": target.registers, "lanes": target.lanes})

    def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
        return lower.candidates(workload, target)

    def lower(self, workload: Workload, candidate: Candidate, target: Target) -> Any:
        return lower.lower(workload, candidate, target)

    def timer(self, target: Target, core: int | None) -> Timer:
        return StaticTimer(target)

    def build(self, network: Network, choices: Choices, target: Target) -> ArmArtifact:
        types = _output_types(network)
        made = executable(network, choices, target)
        outputs = tuple((t.shape, t.dtype) for t in types)
        features = (INT8_DOT_ARM,) if any(on_grid(k.workload) for k in network.kernels) else ()
        return ArmArtifact(made, tuple(k.name for k in network.kernels), target.threads, outputs, features)

    def activation_bytes(self, network: Network) -> int:
        return activation_bytes(network)

    def profile(self, built: Built, tensors: Sequence[torch.Tensor]) -> tuple[tuple[str, Latency], ...]:
        raise MeasureError("kernels are not timed under emulation; use --device for an arm64 machine that runs the RPC server")

    def write_parts(self, built: Built, target: Target, stage: Path) -> TargetPart:
        library = stage / LIBRARY
        library.parent.mkdir()
        cast("ArmArtifact", built).export(library)
        add_runtime(stage, ARCHITECTURE, arm_runtime())
        features = ("neon", *cast("ArmArtifact", built).features)
        return TargetPart(kind="llvm", mcpu=target.mcpu, architecture=ARCHITECTURE, features=features, threads=target.threads)

    def load(self, bundle: Path, manifest: Manifest) -> Built:
        found = architecture(bundle / LIBRARY)
        if found != manifest.target.architecture:
            said = manifest.target.architecture
            raise BundleError(f"{bundle / LIBRARY}: is for {found}, its manifest says {said}; save the bundle again")
        expected = read_vector((bundle / VECTOR).parent).outputs
        return EmulatedBundle(bundle, tuple((tuple(o.shape), o.dtype.name) for o in expected), (), manifest.target.threads)


def _output_types(network: Network) -> list[TensorType]:
    types = dict(network.inputs) | {k.output: k.workload.output for k in network.kernels}
    return [types[name] for name in network.outputs]


BACKEND = ArmBackend()
