"""How many measurements a front needs, against the front of a network whose every kernel has been measured at every width."""

import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import Named
from benchmarks.rows import Row
from billhook.codegen.host import host_target
from billhook.compiler.engine import Engine
from billhook.compiler.fit import Fitter, Values
from billhook.costmodel.network_cost import NetworkCost
from billhook.ir.capture import capture
from billhook.ir.errors import BudgetError
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.passes.allocate import Front, solve
from billhook.passes.analyse import ANALYSIS
from billhook.passes.candidate_sizes import candidate_sizes, with_dense
from billhook.passes.cut import cut_graph
from billhook.passes.saliency import retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem

BUDGETS = tuple(round(0.25 + 0.1 * i, 2) for i in range(8))  # shares of the dense latency at which the front is judged
ROUNDS = 4  # of measuring the kernels of the points and solving again
WITHIN = 0.02


def front_cost(network: Named, threads: int, step: int, folder: Path, progress: Progress) -> Row:
    """Solve at every budget with what few measurements say, then judge the plans by all measurements.

    step: widths are multiples of it, so that every kernel at every width can be measured in reasonable time. Both cost models
    take their samples from one database, so a kernel that both use has one latency.
    """
    model, image = network.load()
    program, _ = run_passes(capture(model, (image,), {}), ANALYSIS)
    target = host_target(threads)
    candidates = _coarse(candidate_sizes(program, target), step)
    scores = score_axes("l2", program, cut_graph(program, Plan({})), None)
    values = Values(scores, {name: retained(s) for name, s in scores.items()})
    with Engine(target, folder / f"front-{network}.db", progress) as engine:
        cost = engine.network_cost(program, with_dense(program, candidates))
        fitter = Fitter(engine, program, values, cost, candidates)
        stages = _refined(fitter, progress)
        full, seconds = _measured_fully(engine, program, candidates, progress)
        judge = Fitter(engine, program, values, full, candidates)
        judged = [{**s, "points": _judged(s["points"], judge)} for s in stages]
        total = _samples(full)
    return {"network": str(network), "step": step, "kernels": total, "full_seconds": seconds, "stages": judged, **_reached(judged)}


def _coarse(candidates: Mapping[str, Sequence[int]], step: int) -> dict[str, tuple[int, ...]]:
    """The candidates that are multiples of the step, and each axis' present size."""
    return {name: tuple(s for s in sizes if s % step == 0 or s == sizes[-1]) for name, sizes in candidates.items()}


def _refined(fitter: Fitter, progress: Progress) -> list[dict[str, Any]]:
    """Plans for every budget after the anchors, and after each round of measuring the kernels of the plans."""
    begun = time.perf_counter()
    fitter.cost.prepare(progress)
    dense = fitter.cost.predict(fitter.whole).seconds
    stages: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        plans = [_plan(fitter, share * dense) for share in BUDGETS]
        points: list[dict[str, Any]] = [{"share": share, **plan} for share, plan in zip(BUDGETS, plans, strict=True) if plan]
        stages.append({"measurements": _samples(fitter.cost), "seconds": time.perf_counter() - begun, "points": points})
        fitter.cost.refine([{**fitter.whole, **p["sizes"]} for p in points], progress)
        if _samples(fitter.cost) == stages[-1]["measurements"]:
            break
    return stages


def _plan(fitter: Fitter, budget: float) -> dict[str, Any]:
    """The best plan within the budget by what is known now; empty where none is within it."""
    tables = fitter.cost.tables(fitter.candidates)
    try:
        found = solve(width_problem(fitter.program, fitter.values.worth, fitter.candidates, tables), budget)
    except BudgetError:
        return {}
    return {"sizes": dict(found.sizes), "predicted": found.seconds, "value": found.value}


def _measured_fully(
    engine: Engine, program: Program, candidates: Mapping[str, Sequence[int]], progress: Progress
) -> tuple[NetworkCost, float]:
    """The cost model of which every kernel at every width is a sample, and the seconds that the missing ones took."""
    begun = time.perf_counter()
    full = engine.network_cost(program, with_dense(program, candidates))
    full.prepare(progress)
    points = {s: [w for w in product(*s.candidates) if s.workload(w) is not None] for s in full.surfaces}
    workloads = [k for s, widths in points.items() for w in widths if (k := s.workload(w)) is not None]
    engine.costs.cost_many(workloads, progress, "measure every width")
    for surface, widths in points.items():
        surface.refine(widths)
    return full, time.perf_counter() - begun


def _judged(points: Sequence[Mapping[str, Any]], judge: Fitter) -> list[dict[str, Any]]:
    """Each point's true latency, and by how much it is above the fully measured front at the point's value."""
    best = judge.front()
    found: list[dict[str, Any]] = []
    for point in points:
        true = judge.cost.predict({**judge.whole, **point["sizes"]}).seconds
        reach = _fastest(best, point["value"])
        found.append({**point, "true": true, "error": point["predicted"] / true - 1, "regret": true / reach - 1 if reach else None})
    return found


def _fastest(front: Front, value: float) -> float | None:
    """Seconds of the fastest point of a front that is worth at least `value`."""
    place = int(np.searchsorted(front.value, value * (1 - 1e-9)))
    return float(front.seconds[place]) if place < len(front) else None


def _reached(stages: Sequence[Mapping[str, Any]]) -> Row:
    """The first stage of which all points are within 2% of the fully measured front, in latency and in what was predicted of them."""
    for stage in stages:
        off = [max(abs(p["error"]), p["regret"] or 0.0) for p in stage["points"]]
        if off and max(off) <= WITHIN:
            return {"measurements": stage["measurements"], "minutes": stage["seconds"] / 60, "worst": max(off)}
    return {"measurements": None, "minutes": None, "worst": None}


def _samples(cost: NetworkCost) -> int:
    """How many distinct kernels the surfaces rest on."""
    return len({sample.workload for surface in cost.surfaces for sample in surface.measured.values()})
