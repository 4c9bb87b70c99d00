"""The front before any training: what accuracy proxy is left at which latency, from scores, costs and one allocation solve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from torch import nn
from torch.nn import functional as F

from billhook.codegen.host import host_target
from billhook.costmodel.network_cost import CostTables
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.ir.capture import capture
from billhook.ir.errors import BudgetError, OptionError
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress, no_progress
from billhook.passes.allocate import Problem, Totals, evaluate, front
from billhook.passes.allocation_objective import Least, floor_of, least_latency
from billhook.passes.allocation_task import network_kernels
from billhook.passes.analyse import ANALYSIS
from billhook.passes.batches import Loader, Loss
from billhook.passes.candidate_sizes import candidate_sizes, with_dense
from billhook.passes.constraints import Constraint, uniform_groups
from billhook.passes.cut import cut_graph
from billhook.passes.saliency import Data, retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem

from .engine import Engine
from .fit import Rule, Values
from .preset import chosen_preset, preset_rule

Unit = Literal["static", "predicted"]


@dataclass(frozen=True, slots=True)
class EarlyPoint:
    """A plan: its cost in the front's unit, the share of the dense network's scores that it retains, and its sizes."""

    cost: float
    retained: float
    sizes: "dict[str, int]"


@dataclass(frozen=True, slots=True)
class EarlyFront:
    """Plans by ascending cost, the dense network's cost, and the largest certified gap over them.

    unit: "predicted" seconds, from kernels that were measured on this machine; "static" for a law over operations and bytes,
    which orders plans and is no time. retained: scores, by the criterion; a proxy of accuracy, not accuracy. least: where a share to
    retain was given, the plan that does so at the least cost, with its own certificate.
    """

    points: tuple[EarlyPoint, ...]
    dense: float
    unit: Unit
    criterion: str
    gap: float
    least: Least | None = None

    def thinned(self, count: int) -> "tuple[EarlyPoint, ...]":
        """At most `count` of the points: the best within evenly spaced costs."""
        costs = np.array([p.cost for p in self.points])
        goals = np.linspace(costs[0], costs[-1], count)
        places = sorted({int(np.searchsorted(costs, g * (1 + 1e-12), side="right")) - 1 for g in goals})
        return tuple(self.points[i] for i in places)


def _check_floor(preset: str | None, retain: float | None) -> None:
    if preset is not None and retain is not None:
        raise OptionError(f"--retain {retain:g}: preset {preset} takes a latency, not a floor; leave one of them out")


def early_front(
    model: nn.Module,
    example_inputs: Any,
    *,
    criterion: str | None = None,
    preset: str | None = None,
    goals: int = 20,
    data: Loader | None = None,
    loss: Loss | None = None,
    batches: int = 16,
    database: Path | None = None,
    threads: int = 1,
    constraints: Sequence[Constraint] = (),
    retain: float | None = None,
    progress: Progress = no_progress,
) -> EarlyFront:
    """The whole front of a network. database: where kernels are measured and kept; None measures nothing and takes a static law.

    criterion: by default taylor with data, l2 without. preset: a method of the literature in place of our allocation, which is asked for
    `goals` evenly spaced costs, and judged by our bound. retain: a share of the scores, whose least cost is wanted besides. Raises
    CaptureError, DataError, OptionError, MeasureError, BudgetError.
    """
    method, name = chosen_preset(preset, criterion, data=data is not None)
    _check_floor(preset, retain)
    args = cast("tuple[Any, ...]", example_inputs) if isinstance(example_inputs, tuple) else (example_inputs,)
    program, _ = run_passes(capture(model, args, {}), ANALYSIS)
    target = host_target(threads)
    candidates = candidate_sizes(program, target, constraints=constraints)
    given = Data(data, loss or F.cross_entropy, batches, progress) if data is not None else None
    scores = score_axes(name, program, cut_graph(program, Plan({})), given)
    worth = {axis: retained(s) for axis, s in scores.items()}

    def solved(tables: CostTables, unit: Unit) -> EarlyFront:
        uniform = uniform_groups(program, constraints)
        problem = width_problem(program, worth, candidates, tables, uniform=uniform)
        if method is None:
            return _front(problem, unit, name, retain)
        rule = preset_rule(method, program, Values(scores, worth), candidates, tables, uniform, target, None)
        return _front_by(rule, goals, problem, unit, name)

    if database is None:
        (tables,) = static_tables(network_kernels(program, candidates, target), candidates, Roofline())
        return solved(tables, "static")
    with Engine(target, database, progress) as engine:
        return solved(_measured(engine, program, candidates, progress), "predicted")


def _measured(engine: Engine, program: Program, candidates: Any, progress: Progress) -> CostTables:
    cost = engine.network_cost(program, with_dense(program, candidates))
    cost.prepare(progress)
    return cost.tables(candidates)


def _front(problem: Problem, unit: Unit, criterion: str, retain: float | None) -> EarlyFront:
    found = front(problem)
    dense = _dense(problem)
    points = tuple(EarlyPoint(p.seconds, p.value / dense.value if dense.value else 1.0, dict(p.sizes)) for p in found.points)
    gap = max(found.at(float(c)).gap for c in found.seconds[:: max(1, len(found) // 100)])
    least = least_latency(problem, floor_of(problem, retain)) if retain is not None else None
    return EarlyFront(points, dense.seconds, unit, criterion, gap, least)


def _front_by(rule: Rule, goals: int, problem: Problem, unit: Unit, criterion: str) -> EarlyFront:
    """The undominated plans that a rule takes for evenly spaced goals; goals that it misses are left out.

    Raises BudgetError where it misses all of them.
    """
    dense, smallest = _dense(problem), float(front(problem).seconds[0])
    points: list[EarlyPoint] = []
    gap, missed = 0.0, "no goal was tried"
    for goal in np.linspace(smallest, dense.seconds, goals).tolist():
        try:
            found = rule(problem, goal)
        except BudgetError as error:
            missed = str(error)
            continue
        kept = found.value / dense.value if dense.value else 1.0
        if not points or (found.seconds > points[-1].cost and kept > points[-1].retained):
            points.append(EarlyPoint(found.seconds, kept, dict(found.sizes)))
            gap = max(gap, found.gap)
    if not points:
        raise BudgetError(missed)
    return EarlyFront(tuple(points), dense.seconds, unit, criterion, gap)


def _dense(problem: Problem) -> Totals:
    return evaluate(problem, {n: v.sizes[-1] for n, v in problem.variables.items()})
