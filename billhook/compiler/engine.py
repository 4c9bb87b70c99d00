"""The engine: lowering, pricing and building for one target, over one database of measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch
from torch import fx

from billhook.codegen.backend import Backend, Built, backend_of
from billhook.codegen.cpu.candidate import Candidate, candidate_from_json, candidate_to_json
from billhook.codegen.timer import COLD_BYTES
from billhook.codegen.tuner import Tuner
from billhook.costmodel.activation_memory import ActivationMemory, activation_memory
from billhook.costmodel.machine import SOFTWARE, fingerprint, installed_versions
from billhook.costmodel.measured import MeasuredCosts, Reuse
from billhook.costmodel.network_cost import Kernel, NetworkCost, Overhead
from billhook.costmodel.partition import Partition, partition
from billhook.costmodel.sample import Conditions, Sample
from billhook.costmodel.selection import Run
from billhook.costmodel.store import Store, open_store
from billhook.costmodel.width_family import kernels_of
from billhook.costmodel.widths import WidthModel
from billhook.costmodel.work import kernel_flops
from billhook.ir.block_sparse import BlockPattern
from billhook.ir.dims import BATCH
from billhook.ir.latency import Latency
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.ir.target import Target
from billhook.ir.tensors import tensors_in
from billhook.ir.workload import Workload
from billhook.passes.batches import Loader
from billhook.passes.block_sparsity import sparse_network
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.on_grids import OnGrids
from billhook.passes.oracle import relative_error
from billhook.passes.quantise_reference import run_quantised

from .bench import Bench, LocalBench
from .calibration import calibration_batches
from .precision import check_precision, in_int8, in_precision

TRIALS = 16  # schedules tried per kernel family without a template
DISPATCH = Latency(0.13e-6, 0.1e-6, 0.3e-6, "host")  # relax VM, slope over chains of 20 and 220 kernels (KERNELS.md B.4)

Example = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True)
class Build:
    """A compiled network, the kernels it is made of, and its relative error against torch on the example inputs.

    rounding_error, kernel_error: in int8, where the error comes from: what integer arithmetic without our kernels differs from torch by,
    and what the build differs from that by. One integer that float32 rounds to the other side of a tie changes many behind it, so in a deep
    network the second may approach the first. None where kernels are real.
    """

    artifact: Built
    network: Network
    error: float
    rounding_error: float | None = None
    kernel_error: float | None = None


class Engine:
    """Kernels for one target. Use as a context manager: it holds measuring processes and an open database.

    bench: where to measure; None is this machine. It is closed together with the engine. backend: None is the target's own.
    precision: of values and products, "fp32", "bf16" or "int8"; OptionError where the target lacks it. data: what int8 is calibrated
    with; None takes the example inputs.
    """

    def __init__(
        self,
        target: Target,
        database: Path,
        progress: Progress,
        trials: int = TRIALS,
        bench: Bench | None = None,
        backend: Backend | None = None,
        precision: str = "fp32",
        data: Loader | None = None,
    ) -> None:
        self.target, self.progress, self.precision = target, progress, check_precision(precision, target)
        self.backend, self._data = backend or backend_of(target), data
        self.bench: Bench = bench or LocalBench(target, self.backend)
        self._store: Store = open_store(database)
        level = f"trials:{trials} cold:{COLD_BYTES >> 20}"
        conditions = Conditions(fingerprint(target, self.bench.processor), level, installed_versions(SOFTWARE))
        self._tuner = Tuner(target, trials, database.parent / "schedules", self.backend)
        self._tuner.remember(
            (s.workload, candidate_from_json(s.candidate)) for s in self._store.samples(conditions) if s.latency is not None
        )
        self.costs = MeasuredCosts(self._store, self._measure, conditions, self.bench.workers, usable=self._is_current)
        self.measured = 0  # kernels timed by this engine, as opposed to found in the database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bench.close()
        self._store.close()

    def lower(self, graph: fx.GraphModule, example: Example) -> Partition:
        """The kernels of a graph at the example's shapes."""
        real = self._real(graph, example)
        if self.precision.name == "int8":
            return self._in_int8(real, example).partition
        return in_precision(real, self.precision, self.backend)

    def _real(self, graph: fx.GraphModule, example: Example) -> Partition:
        return partition(normalise_for_inference(graph, example), self.target)

    def _in_int8(self, real: Partition, example: Example) -> OnGrids:
        return in_int8(real, self.backend, calibration_batches(self._data, example))

    def network_cost(self, program: Program, candidates: Mapping[str, Sequence[int]]) -> NetworkCost:
        """The latency of the program's network as a function of its axis sizes."""
        return NetworkCost(self.kernels(program, candidates), candidates, self.costs, kernel_flops, Overhead(DISPATCH))

    def kernels(self, program: Program, candidates: Mapping[str, Sequence[int]]) -> tuple[Kernel, ...]:
        """The kernels of the program's network as functions of its axes, in the engine's precision."""
        removable = [name for name, sizes in candidates.items() if 0 in sizes]
        return kernels_of(self._width_model(program), self.target, {BATCH: batch_size(program)}, removable)

    def activation_memory(self, program: Program, candidates: Mapping[str, Sequence[int]]) -> ActivationMemory:
        """The bytes between the kernels of the program's network as a function of its axis sizes."""
        return activation_memory(self._width_model(program), self.target, candidates, batch_size(program))

    def activation_bytes(self, graph: fx.GraphModule, example: Example) -> int:
        """What a build of this graph allocates for the values between its kernels, by the target's own planner; nothing is built."""
        return self.backend.activation_bytes(self.lower(graph, example).network)

    def _width_model(self, program: Program) -> WidthModel:
        return WidthModel(program, self.lower(cut_graph(program, Plan({})), program.example))

    def build(self, graph: fx.GraphModule, example: Example, sparse: Mapping[str, BlockPattern] | None = None) -> Build:
        """Compile a graph (in evaluation mode) from exactly the kernels that were timed; what was not yet timed is timed now.

        sparse: patterns of the parameters that are masked, whose kernels then leave out the rest. In float32 only.
        """
        inputs = tuple(t.detach() for t in tensors_in(example))
        reference: list[torch.Tensor] = []
        if self.precision.name == "int8":
            real = self._real(graph, example)
            found = self._in_int8(real, example)
            network = found.partition.network
            reference = [t.float() for t in run_quantised(real.network, found.quantisation, inputs)]
        else:
            network = sparse_network(self.lower(graph, example).network, sparse or {})
        artifact = self.backend.build(network, self.choices(network), self.target)
        args, kwargs = example
        with torch.no_grad():
            expected = tensors_in(graph(*args, **kwargs))
        outputs = self.bench.outputs(artifact, inputs)
        build = Build(artifact, network, relative_error(outputs, expected))
        if not reference:
            return build
        return replace(build, rounding_error=relative_error(reference, expected), kernel_error=relative_error(outputs, reference))

    def note_run(self, model: str) -> Reuse:
        """How many of the kernels that were needed so far the database had; noted there under the model's name, for `billhook db`."""
        reuse = self.costs.reuse
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._store.add_run(Run(model, self.costs.conditions.fingerprint, reuse.wanted, reuse.found, now))
        return reuse

    def choices(self, network: Network) -> dict[Workload, Candidate]:
        """The fastest kernel of every workload. Raises MeasureError where one has none."""
        workloads = [k.workload for k in network.kernels]
        self.costs.cost_many(workloads, self.progress, "measure kernels of the build")
        return {w: candidate_from_json(self.costs.cost(w).candidate) for w in dict.fromkeys(workloads)}

    def _is_current(self, sample: Sample) -> bool:
        """Whether the kernel that won is of a kind that would still be tried: since then a template for its workload may have come."""
        if sample.latency is None:
            return True
        offered = self.backend.candidates(sample.workload, self.target)
        return candidate_from_json(sample.candidate).template in {c.template for c in offered}

    def _measure(self, workload: Workload) -> tuple[Latency, str]:
        self.measured += 1
        found = self.bench.measure(workload, self._tuner.candidates(workload))
        return found.latency, candidate_to_json(found.candidate)


def batch_size(program: Program) -> int:
    """Leading extent of the example's first tensor (captured with 2 where the example has 1)."""
    return next((int(t.shape[0]) for t in tensors_in(program.example) if t.dim() > 0), 1)
