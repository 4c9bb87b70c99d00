"""The bench of one network: the sum of its measured kernels, which guides, and networks that were built, which decide."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import torch
from torch import nn

from benchmarks.rows import Rows
from billhook.api import trace
from billhook.codegen.backend import Measured
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.host import host_target
from billhook.compiler.bench import LocalBench
from billhook.compiler.compare import quiet
from billhook.compiler.engine import Engine
from billhook.costmodel.network_cost import CostTables
from billhook.costmodel.static_cost import static_tables
from billhook.costmodel.statistics import Rounds, interleave
from billhook.costmodel.work import kernel_flops
from billhook.ir.latency import Latency
from billhook.ir.plan import Plan, make_plan
from billhook.ir.progress import Progress
from billhook.ir.tensors import tensors_in
from billhook.ir.workload import Workload
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes, dense_sizes, with_dense
from billhook.passes.cut import cut_graph

_CANDIDATES = 2  # schedules tried per kernel, and one where there is no template: dense and cut networks alike
_ROUNDS = Rounds(count=24, limit=48, statistic="minimum")


class FewCandidates(LocalBench):
    """This machine, with the first schedules of every kernel only: accuracy is compared here, not kernels."""

    def measure(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        return super().measure(workload, candidates[:_CANDIDATES])


class Bench:
    """Latencies of one architecture, whatever its weights, as shares of the dense network's.

    built: rows of networks that were built and measured, {network, form, sizes, share: [value, low, high]}; more are added.
    """

    def __init__(self, name: str, model: nn.Module, example: torch.Tensor, engine: Engine, built: Rows, progress: Progress) -> None:
        self.name, self.engine, self.progress = name, engine, progress
        self.program = trace(model, example)
        self.candidates = candidate_sizes(self.program, engine.target)
        self.cost = engine.network_cost(self.program, with_dense(self.program, self.candidates))
        self.cost.prepare(progress)
        kernels = network_kernels(self.program, self.candidates, engine.target)
        (self.operations,) = static_tables(kernels, self.candidates, lambda w: float(kernel_flops(w)))
        self._inputs = tensors_in(self.program.example)
        self._built = built
        self._tables: CostTables | None = None
        self._dense: Callable[[], object] | None = None

    def tables(self) -> CostTables:
        """Cost tables as known by now."""
        self._tables = self._tables or self.cost.tables(self.candidates)
        return self._tables

    def goal(self, share: float) -> float:
        """Seconds of kernels that are this share of the dense network's."""
        return share * self._sum({})

    def predicted(self, sizes: Mapping[str, int]) -> float:
        """The share of the dense network's kernels at these sizes; those between two candidates count as the upper one."""
        return self._sum(self._offered(sizes)) / self._sum({})

    def refine(self, sizes: Mapping[str, int]) -> None:
        """Measure the kernels of a plan one by one."""
        before = self.engine.measured
        self.cost.refine([{**dense_sizes(self.program), **self._offered(sizes)}], self.progress)
        if self.engine.measured > before:
            self._tables = None

    def measured(self, sizes: Mapping[str, int]) -> float:
        """The share of the dense latency that the built network of these sizes takes; equal sizes are built once."""
        cut = changed(sizes, self)
        known = self._built.find(network=self.name, form=str(cut))
        if known is None:
            found = self._time(cut)
            share = [found.seconds, found.low, found.high]
            self._built.add({"network": self.name, "form": str(cut), "sizes": cut, "share": share, "predicted": self.predicted(cut)})
            return found.seconds
        return float(known["share"][0])

    def bias(self) -> float:
        """How many times the predicted share built networks took, in the median of those so far; 1 before the first."""
        mine = [b for b in self._built.read() if b["network"] == self.name]
        return median(b["share"][0] / b["predicted"] for b in mine) if mine else 1.0

    def _time(self, sizes: Mapping[str, int]) -> Latency:
        """A network of these sizes against the dense build, in turns, by processor time: a share of its latency."""
        self._dense = self._dense or self._bound({})
        calls = {"dense": self._dense, "cut": self._bound(sizes)}
        with quiet(1):
            timings = interleave(calls, _ROUNDS, thread_time)
        return timings["cut"].latency.scaled(1 / timings["dense"].latency.seconds)

    def _sum(self, sizes: Mapping[str, int]) -> float:
        return self.cost.predict({**dense_sizes(self.program), **sizes}).seconds

    def _offered(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {n: next(c for c in self.candidates[n] if c >= s) for n, s in sizes.items()}

    def _bound(self, sizes: Mapping[str, int]) -> Callable[[], object]:
        plan = make_plan(self.program, {n: tuple(range(s)) for n, s in sizes.items()}) if sizes else Plan({})
        artifact: Any = self.engine.build(cut_graph(self.program, plan), self.program.example).artifact
        return artifact.bind(*self._inputs)


def changed(sizes: Mapping[str, int], bench: Bench) -> dict[str, int]:
    """The sizes of the axes that are not whole, in the order of the axes."""
    return {a.name: sizes[a.name] for a in bench.program.axes if sizes.get(a.name, a.size) < a.size}


def open_engine(database: Path, progress: Progress) -> Engine:
    """An engine for this machine and one thread."""
    target = host_target(1)
    return Engine(target, database, progress, trials=1, bench=FewCandidates(target))
