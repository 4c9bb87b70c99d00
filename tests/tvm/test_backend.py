"""The target interface: a whole backend in a few lines, compiled through the engine like any other; and what names it refuses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from targets import Cnn

import billhook.api as bh
from billhook.codegen.backend import Backend, Built, Choices, Constraints, Measured, Timer, backend_of, target_named
from billhook.codegen.bundle_manifest import Manifest, TargetPart
from billhook.codegen.cpu.candidate import Candidate
from billhook.compiler.engine import Engine
from billhook.ir.errors import BundleError, MeasureError, OptionError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.memory import arena_bytes
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.reference import run_network
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.cut import cut_graph

TARGET = Target(kind="abacus", lanes=1, fine_lanes=4)


class Interpreted:
    """A network that torch runs kernel by kernel."""

    threads = 1

    def __init__(self, network: Network) -> None:
        self.network, self.kernels = network, tuple(k.name for k in network.kernels)

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        return tuple(run_network(self.network, tuple(map(torch.as_tensor, tensors))))

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        return lambda: self.run(*tensors)


class Beads:
    """One bead per element: no clock needed."""

    def measure_candidates(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        if not candidates:
            raise MeasureError(f"no kernel for {workload}: no template covers it")
        seconds = 1e-9 * workload.output.elements
        return Measured(workload, candidates[0], Latency(seconds, seconds, seconds, "simulated"))

    def close(self) -> int:
        return 0


class Abacus:
    """The smallest target: it computes with torch and counts elements."""

    name = "abacus"
    provenance: Provenance | None = "simulated"

    def target(self, device: str, threads: int) -> Target:
        return TARGET

    def device(self, target: Target) -> str:
        return "abacus"

    def constraints(self, target: Target) -> Constraints:
        return Constraints(target.width_step, "abacus", {"beads": 100})

    def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
        return () if any("hardswish" in call.op for call in workload.calls) else (Candidate("abacus"),)

    def lower(self, workload: Workload, candidate: Candidate, target: Target) -> Any:
        return str(workload)

    def timer(self, target: Target, core: int | None) -> Timer:
        return Beads()

    def build(self, network: Network, choices: Choices, target: Target) -> Built:
        assert {k.workload for k in network.kernels} <= set(choices)
        return Interpreted(network)

    def activation_bytes(self, network: Network) -> int:
        return arena_bytes(network)

    def profile(self, built: Built, tensors: Sequence[torch.Tensor]) -> tuple[tuple[str, Latency], ...]:
        return ()

    def write_parts(self, built: Built, target: Target, stage: Path) -> TargetPart:
        raise BundleError("an abacus cannot be shipped")

    def load(self, bundle: Path, manifest: Manifest) -> Built:
        raise BundleError("an abacus cannot be shipped")


class Plain(torch.nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 12, 3), torch.nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


def engine(tmp_path: Path) -> Engine:
    backend: Backend = Abacus()
    return Engine(TARGET, tmp_path / "kernels.db", lambda *_: None, trials=0, backend=backend)


def test_kernels_of_a_template_that_is_no_longer_offered_are_measured_again(tmp_path: Path) -> None:
    class Later(Abacus):
        def candidates(self, workload: Workload, target: Target) -> tuple[Candidate, ...]:
            return tuple(replace(c, template="a newer one") for c in super().candidates(workload, target))

    program = bh.trace(Plain().eval(), torch.randn(1, 3, 10, 10))
    with engine(tmp_path) as compiler:
        build = compiler.build(cut_graph(program, Plan({})), program.example)
    workload = build.network.kernels[0].workload
    for backend, known in ((Abacus(), True), (Later(), False)):
        with Engine(TARGET, tmp_path / "kernels.db", lambda *_: None, trials=0, backend=backend) as again:
            assert (again.costs.known(workload) is not None) == known


def test_a_few_lines_are_a_target(tmp_path: Path) -> None:
    program = bh.trace(Plain().eval(), torch.randn(1, 3, 10, 10))
    with engine(tmp_path) as compiler:
        build = compiler.build(cut_graph(program, Plan({})), program.example)
        assert build.error == 0
        assert "abacus" in compiler.bench.processor
        assert compiler.costs.cost(build.network.kernels[0].workload).latency.provenance == "simulated"  # pyright: ignore[reportOptionalMemberAccess]
        axes = {axis.name: (4, axis.size) if axis.prunable else (axis.size,) for axis in program.axes}
        cost = compiler.network_cost(program, axes)
        small, large = (cost.predict({n: sizes[i] for n, sizes in axes.items()}).seconds for i in (0, -1))
        assert small < large


def test_a_kernel_that_the_target_lacks_is_named(tmp_path: Path) -> None:
    program = bh.trace(Cnn().eval(), torch.randn(1, 3, 32, 32))
    with engine(tmp_path) as compiler, pytest.raises(MeasureError, match="hardswish"):
        compiler.build(cut_graph(program, Plan({})), program.example)


def test_targets_have_names() -> None:
    for text, kind in (("llvm", "llvm"), ("cuda:sm_80", "cuda"), ("opencl:mali-g71", "opencl"), ("arm64:cortex-a55", "llvm")):
        found = target_named(text)
        assert found.kind == kind
        name = text.partition(":")[0]
        assert backend_of(found).name == name
        assert str(found.width_step) in str(backend_of(found).constraints(found))
    for text, hint in (("abacus", "llvm, cpu, cuda"), ("cuda:sm_20", "sm_90"), ("arm64:cray", "cortex-a76"), ("llvm:zen", "--device")):
        with pytest.raises(OptionError, match=hint):
            target_named(text)
