"""One network: predict all of its assignments, then build and measure them one after the other."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import Named
from benchmarks.rows import Row, Rows
from billhook.codegen.host import host_target
from billhook.compiler.compare import Contest
from billhook.compiler.engine import Build, Engine
from billhook.costmodel.network_cost import NetworkCost
from billhook.costmodel.work import kernel_flops
from billhook.ir.capture import capture
from billhook.ir.latency import Latency
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.passes.analyse import ANALYSIS
from billhook.passes.candidate_sizes import candidate_sizes, dense_sizes, with_dense
from billhook.passes.cut import cut_graph
from billhook.passes.saliency import Scores
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import plan_of

from .draw import assignments

DENSE, CALIBRATION, EVALUATION = "dense", "calibration", "evaluation"
CALIBRATION_SEED = 1_000_003  # apart from those of the evaluation


@dataclass(frozen=True, slots=True)
class Task:
    """A network, and how many assignments calibrate its predictions and how many judge them."""

    network: Named
    threads: int
    seed: int
    calibration: int
    evaluation: int

    @property
    def keys(self) -> Row:
        """What a row of this task says about it."""
        return {"network": str(self.network), "threads": self.threads, "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Assignment:
    """Sizes of every axis, how they were drawn, and what the surfaces said of them when only anchors had been measured."""

    role: str
    index: int
    kind: str
    sizes: Mapping[str, int]
    predicted: Latency


def measure(task: Task, database: Path, rows: Rows, progress: Progress) -> None:
    """Add the rows that are missing: the dense network's, then those of every assignment. Raises what building raises."""
    model, image = task.network.load()
    program, _ = run_passes(capture(model, (image,), {}), ANALYSIS)
    target = host_target(task.threads)
    with Engine(target, database, progress) as engine, torch.no_grad():
        candidates = candidate_sizes(program, target)
        cost = engine.network_cost(program, with_dense(program, candidates))
        cost.prepare(progress)
        # before any kernel of theirs is measured: the surfaces know nothing but their anchors
        drawn = list(_drawn(task, program, candidates, cost))
        bench = _Bench(program, engine, cost, score_axes("l2", program, cut_graph(program, Plan({})), None), task.threads, progress)
        dense = rows.find(**task.keys, role=DENSE)
        if dense is None:
            dense = {**task.keys, **bench.dense_row()}
            rows.add(dense)
        for assignment in drawn:
            where = {**task.keys, "role": assignment.role, "index": assignment.index}
            if rows.find(**where) is None:
                rows.add({**where, **bench.row(assignment, dense["measured"]["seconds"])})
            progress(f"{assignment.role} of {task.network}", assignment.index + 1, getattr(task, assignment.role))


def _drawn(task: Task, program: Program, candidates: Mapping[str, tuple[int, ...]], cost: NetworkCost) -> Iterator[Assignment]:
    for role, seed in ((CALIBRATION, task.seed + CALIBRATION_SEED), (EVALUATION, task.seed)):
        wanted = itertools.islice(assignments(program, candidates, seed), getattr(task, role))
        for index, (kind, sizes) in enumerate(wanted):
            yield Assignment(role, index, kind, sizes, cost.predict(sizes))


class _Bench:
    """Builds and measures: every latency is a ratio to the dense build in the same rounds."""

    def __init__(self, program: Program, engine: Engine, cost: NetworkCost, scores: Scores, threads: int, progress: Progress) -> None:
        self._program, self._engine, self._cost, self._scores = program, engine, cost, scores
        self._dense = engine.build(cut_graph(program, Plan({})), program.example)
        self._contest = Contest(program, self._dense, (), threads, progress)
        self._now = self._contest.dense().ours_dense

    def dense_row(self) -> Row:
        """The dense network, which alone gives the first calibration."""
        whole = dense_sizes(self._program)
        predicted = self._cost.predict(whole)
        return {"role": DENSE, "index": 0, "kind": DENSE, **self._facts(self._dense, predicted, predicted), "measured": packed(self._now)}

    def row(self, assignment: Assignment, dense_seconds: float) -> Row:
        """Cut, build, measure. `dense_seconds`: what the row of the dense network says, to which the ratio is applied."""
        self._cost.refine([assignment.sizes], self._engine.progress)
        refined = self._cost.predict(assignment.sizes)
        cut = cut_graph(self._program, plan_of(self._program, self._scores, assignment.sizes))
        build = self._engine.build(cut, self._program.example)
        measured = self._contest.of_build(build).scaled(dense_seconds / self._now.seconds)
        facts = self._facts(build, assignment.predicted, refined)
        return {"kind": assignment.kind, **facts, "measured": packed(measured), "sizes": dict(assignment.sizes)}

    def _facts(self, build: Build, surfaces: Latency, kernels: Latency) -> Row:
        """Uncalibrated predictions, and what simpler predictors go by; seconds."""
        workloads = [k.workload for k in build.network.kernels]
        alone = [self._engine.costs.cost(w).latency for w in workloads]
        return {
            "surfaces": packed(surfaces),
            "kernels": packed(kernels),
            "table_sum": sum(latency.seconds for latency in alone if latency is not None),
            "flops": sum(map(kernel_flops, workloads)),
            "error": build.error,
        }


def packed(latency: Latency) -> dict[str, Any]:
    """A latency as JSON: seconds and the ends of its interval."""
    return {"seconds": latency.seconds, "low": latency.low, "high": latency.high}
