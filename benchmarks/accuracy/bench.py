"""The bench of one network: its measured kernel costs, their sum as a calibrated share of the dense latency, and built networks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import torch
from torch import nn

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
from billhook.passes.candidate_sizes import candidate_sizes, dense_sizes, uniform_sizes, with_dense
from billhook.passes.cut import cut_graph

_CANDIDATES = 2  # schedules tried per kernel, and one where there is no template: dense and cut networks alike
_ROUNDS = Rounds(count=24, limit=48, statistic="minimum")
_FITTED = (0.35, 0.5, 0.65, 0.8)  # shares of all axes that are built to calibrate the sum of kernels


class FewCandidates(LocalBench):
    """This machine, with the first schedules of every kernel only: accuracy is compared here, not kernels."""

    def measure(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        return super().measure(workload, candidates[:_CANDIDATES])


class Bench:
    """Costs of one architecture, whatever its weights. Latencies are shares of the dense network's."""

    def __init__(self, model: nn.Module, example: torch.Tensor, engine: Engine, progress: Progress) -> None:
        self.program, self.engine, self.progress = trace(model, example), engine, progress
        self.candidates = candidate_sizes(self.program, engine.target)
        self.cost = engine.network_cost(self.program, with_dense(self.program, self.candidates))
        self.cost.prepare(progress)
        kernels = network_kernels(self.program, self.candidates, engine.target)
        (self.operations,) = static_tables(kernels, self.candidates, lambda w: float(kernel_flops(w)))
        self.slope = 1.0  # of measured against predicted shares
        self._inputs = tensors_in(self.program.example)
        self._tables: CostTables | None = None

    def tables(self) -> CostTables:
        """Cost tables as known by now."""
        self._tables = self._tables or self.cost.tables(self.candidates)
        return self._tables

    def goal(self, share: float) -> float:
        """The sum of kernels, in seconds, at which a network is expected to take this share of the dense one's latency."""
        return self._sum({}) * (1 - (1 - share) / self.slope)

    def share(self, sizes: Mapping[str, int]) -> float:
        """The share of the dense latency that is expected at these sizes; those between two candidates count as the upper one."""
        return 1 - self.slope * (1 - self._sum(self._offered(sizes)) / self._sum({}))

    def refine(self, sizes: Mapping[str, int]) -> None:
        """Measure the kernels of a plan one by one."""
        before = self.engine.measured
        self.cost.refine([{**dense_sizes(self.program), **self._offered(sizes)}], self.progress)
        if self.engine.measured > before:
            self._tables = None

    def built_share(self, sizes: Mapping[str, int]) -> Latency:
        """Build a network of these sizes and time it against the dense build, in turns, by processor time: a share of its latency."""
        calls: dict[str, Callable[[], object]] = {"dense": self._bound({}), "cut": self._bound(sizes)}
        with quiet(1):
            timings = interleave(calls, _ROUNDS, thread_time)
        return timings["cut"].latency.scaled(1 / timings["dense"].latency.seconds)

    def calibrate(self, shares: Mapping[float, tuple[float, float]] | None = None) -> dict[float, tuple[float, float]]:
        """Fit the slope to (predicted, measured) shares of uniform networks: those given, or measured now. Returns them."""
        found = dict(shares or {})
        for share in () if shares else _FITTED:
            sizes = uniform_sizes(self.candidates, share)
            self.refine(sizes)
            found[share] = self._sum(sizes) / self._sum({}), self.built_share(sizes).seconds
        saved = 1 - np.array([*found.values()])
        self.slope = float(saved[:, 0] @ saved[:, 1] / (saved[:, 0] @ saved[:, 0]))
        return found

    def _sum(self, sizes: Mapping[str, int]) -> float:
        return self.cost.predict({**dense_sizes(self.program), **sizes}).seconds

    def _offered(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {n: next(c for c in self.candidates[n] if c >= s) for n, s in sizes.items()}

    def _bound(self, sizes: Mapping[str, int]) -> Callable[[], object]:
        plan = make_plan(self.program, {n: tuple(range(s)) for n, s in sizes.items()}) if sizes else Plan({})
        artifact: Any = self.engine.build(cut_graph(self.program, plan), self.program.example).artifact
        return artifact.bind(*self._inputs)


def open_engine(database: Path, progress: Progress) -> Engine:
    """An engine for this machine and one thread."""
    target = host_target(1)
    return Engine(target, database, progress, trials=1, bench=FewCandidates(target))
