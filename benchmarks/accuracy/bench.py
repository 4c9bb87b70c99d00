"""The bench of one network: its program, its measured costs, its dense build, and how fast others are beside that."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import fx, nn

from billhook.codegen.host import host_target
from billhook.compiler.compare import quiet
from billhook.compiler.engine import Build, Engine
from billhook.costmodel.network_cost import CostTables
from billhook.costmodel.static_cost import static_tables
from billhook.costmodel.statistics import interleave
from billhook.costmodel.work import kernel_flops
from billhook.ir.latency import Latency
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.ir.tensors import tensors_in
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes, dense_sizes, with_dense
from billhook.passes.cut import cut_graph


class Bench:
    """Costs and measurements of one network. Latencies are shares of the dense build, timed in the same rounds."""

    def __init__(self, program: Program, engine: Engine, progress: Progress) -> None:
        self.program, self.engine, self.progress = program, engine, progress
        self.candidates = candidate_sizes(program, engine.target)
        self.cost = engine.network_cost(program, with_dense(program, self.candidates))
        self.cost.prepare(progress)
        kernels = network_kernels(program, self.candidates, engine.target)
        (self.operations,) = static_tables(kernels, self.candidates, lambda w: float(kernel_flops(w)))
        self.dense = engine.build(cut_graph(program, Plan({})), program.example)
        self._inputs = tensors_in(program.example)

    @property
    def dense_prediction(self) -> float:
        """Seconds that the cost model adds up for the dense network."""
        return self.cost.predict(dense_sizes(self.program)).seconds

    def tables(self) -> CostTables:
        """Cost tables as known by now."""
        return self.cost.tables(self.candidates)

    def refine(self, sizes: Mapping[str, int]) -> float:
        """Measure the kernels of a plan one by one; the seconds that they add up to."""
        plan = {**dense_sizes(self.program), **sizes}
        self.cost.refine([plan], self.progress)
        return self.cost.predict(plan).seconds

    def build(self, graph: fx.GraphModule) -> Build:
        """Compile a graph from the fastest kernels."""
        return self.engine.build(graph, self.program.example)

    def share(self, build: Build) -> Latency:
        """Latency as a share of the dense build's, measured in turns; the interval is that of the build over the dense estimate."""
        calls: dict[str, Callable[[], object]] = {
            "dense": self.dense.artifact.bind(*self._inputs),
            "cut": build.artifact.bind(*self._inputs),
        }
        with quiet(1):
            timings = interleave(calls)
        return timings["cut"].latency.scaled(1 / timings["dense"].latency.seconds)

    def dense_latency(self) -> Latency:
        """Latency of the dense build alone."""
        with quiet(1):
            return interleave({"dense": self.dense.artifact.bind(*self._inputs)})["dense"].latency


def open_engine(database: Path, progress: Progress) -> Engine:
    """An engine for this machine and one thread."""
    return Engine(host_target(1), database, progress)


def parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())
