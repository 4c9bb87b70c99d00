"""One network, and small random problems: fronts, gaps, and other solvers beside."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import Named
from benchmarks.rows import Row
from billhook.api import trace
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.ir.errors import BudgetError
from billhook.ir.target import Target
from billhook.passes.allocate import Problem, evaluate, front, solve
from billhook.passes.allocation_milp import solve_milp
from billhook.passes.allocation_model import build_model
from billhook.passes.allocation_presets import Task
from billhook.passes.allocation_problem import Ints, restrict
from billhook.passes.allocation_sides import one_sided
from billhook.passes.allocation_task import network_kernels, preset_task
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.saliency import retained
from billhook.passes.saliency_criteria import score_axes

from .reference import brute_force, dynamic_programming, merge, separable

BUDGETS = 200
LOW, HIGH = 0.15, 0.95  # shares of the dense cost
OFFERED = 6
HIGHS_SECONDS = 20.0


def task_of(network: str, size: int) -> tuple[Task, dict[str, float]]:
    """The allocation task of a network under the static cost law, L2 scores, and the seconds of each preparation."""
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    model, image = Named(network, size).load()
    program = trace(model, image)
    seconds["trace"] = time.perf_counter() - start
    start = time.perf_counter()
    candidates = candidate_sizes(program, Target())
    (tables,) = static_tables(network_kernels(program, candidates, Target()), candidates, Roofline())
    seconds["tables"] = time.perf_counter() - start
    worth = {name: retained(s) for name, s in score_axes("l2-mean", program, model, None).items()}
    return preset_task(program, worth, candidates, tables), seconds


def network_row(network: str, size: int) -> Row:
    """The front over `BUDGETS` budgets in one solve, and the solvers at half the cost."""
    task, prepared = task_of(network, size)
    problem = task.problem
    dense = evaluate(problem, {n: v.sizes[-1] for n, v in problem.variables.items()}).seconds
    start, cpu = time.perf_counter(), time.process_time()
    found = front(problem)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    budgets = [b for b in np.linspace(LOW, HIGH, BUDGETS) * dense if b >= found.seconds[0]]
    gaps = np.array([found.at(float(b)).gap for b in budgets])
    return {
        "network": network,
        "kind": "front",
        "variables": len(problem.variables),
        "candidates": sum(len(v.sizes) for v in problem.variables.values()),
        "front_seconds": seconds,
        "front_cpu_seconds": cpu_seconds,
        "points": len(found),
        "budgets": len(budgets),
        "gap_max": float(gaps.max()),
        "gap_mean": float(gaps.mean()),
        "gap_share_within_0.1_percent": float((gaps <= 1e-3).mean()),
        "prepare": prepared,
        "solvers": _solvers(problem, 0.5 * dense),
        "separable": _separable(task, 0.5 * dense),
    }


def _timed(solver: Callable[[], float]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        value = solver()
    except (MemoryError, BudgetError) as failure:
        return {"failed": str(failure), "seconds": time.perf_counter() - start}
    return {"value": value, "seconds": time.perf_counter() - start}


def _solvers(whole: Problem, budget: float) -> dict[str, Any]:
    """Ours and HiGHS alone on the joint problem, which neither a knapsack table nor a merge of Pareto sets can express.

    With OFFERED candidates for each axis: over all of them HiGHS does not get through its first relaxation in minutes.
    """
    problem = restrict(whole, {n: _spread(len(v.sizes)) for n, v in whole.variables.items()})
    ours = solve(problem, budget)
    model = build_model(problem)
    start = time.perf_counter()
    alone = solve_milp(model, np.array([budget, *model.limits]), 1e-3, HIGHS_SECONDS)
    seconds = time.perf_counter() - start
    value = None if alone.choice is None else float(model.totals(alone.choice[None])[0][0, 0])
    timed = _timed(lambda: solve(problem, budget).value)
    offered = {"candidates per axis": OFFERED, "variables": len(problem.variables)}
    return {**offered, "ours": {**timed, "gap": ours.gap}, "highs": {"value": value, "bound": alone.bound, "seconds": seconds}}


def _spread(count: int) -> Ints:
    """Indices of OFFERED candidates, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, OFFERED)).round().astype(np.intp))


def _separable(task: Task, budget: float) -> dict[str, Any]:
    """All solvers on HALP's separable problem: the costs over what each kernel makes, its inputs whole."""
    whole = {n: v.sizes[-1] for n, v in task.problem.variables.items()}
    sided = one_sided(task.problem, whole, "made", task.made)
    try:
        choices, constant = separable(sided)
    except ValueError as coupled:
        return {"not separable": str(coupled)}
    room = budget - constant
    if room <= 0:
        return {"not separable": "the constant part is over the budget"}
    found = {
        "ours": _timed(lambda: solve(sided, budget).value),
        "dp 2,000 bins": _timed(lambda: dynamic_programming(choices, room, 2000)),
        "dp 10,000 bins": _timed(lambda: dynamic_programming(choices, room, 10000)),
        "merge": _timed(lambda: merge(choices, room)),
    }
    best = max((r["value"] for r in found.values() if "value" in r), default=0.0)
    return {n: {**r, "below_best": 1 - r["value"] / best} if "value" in r and best > 0 else r for n, r in found.items()}


def small_row(seed: int) -> Row:
    """Random problems of the tests' generator, small enough to enumerate: how far below the best plan the answer is."""
    support = str(Path(__file__).parents[2] / "tests" / "support")
    if support not in sys.path:
        sys.path.insert(0, support)
    import allocation_cases  # pyright: ignore[reportMissingImports]

    cases: Any = allocation_cases
    gaps: list[float] = []
    for make in (lambda: cases.chain_network(5, 4, seed), lambda: cases.residual_network(5, 4, seed)):
        problem: Problem = make()
        dense = evaluate(problem, cases.largest_sizes(problem)).seconds
        for share in (0.3, 0.5, 0.7):
            best = brute_force(problem, share * dense)
            if np.isfinite(best):
                gaps.append(1 - solve(problem, share * dense).value / best)
    return {"network": f"random {seed}", "kind": "small", "gaps": gaps, "gap_max": max(gaps, default=0.0)}
