"""Pruning for an accelerator: sizes that save the most cycles for what they cost in saliency, on the grid of its array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.pricing import Pricer
from billhook.codegen.fpga.search import Design
from billhook.costmodel.partition import Partition
from billhook.ir.errors import BudgetError
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.passes.allocate import Problem, evaluate, solve
from billhook.passes.candidate_sizes import candidate_sizes, with_dense
from billhook.passes.constraints import Constraint, uniform_groups
from billhook.passes.saliency import Scores, retained
from billhook.passes.width_problem import plan_of, width_problem

from .fpga_cost import cycle_tables, fpga_target


@dataclass(frozen=True)
class Allocation:
    """Sizes for one design: modelled cycles, and the share of the saliency that they keep."""

    design: Design
    plan: Plan
    sizes: Mapping[str, int]
    cycles: int
    kept: float


def allocate(
    program: Program, parts: Partition, design: Design, pricer: Pricer, scores: Scores, budget: int, constraints: Sequence[Constraint] = ()
) -> Allocation:
    """The sizes that keep the most saliency within a budget of cycles. Raises BudgetError that states the fewest cycles."""
    candidates = candidate_sizes(program, fpga_target(parts.target.mcpu, design.accelerator), constraints=constraints)
    problem = cycle_problem(program, parts, candidates, pricer, scores, constraints)
    try:
        solution = solve(problem, float(budget))
    except BudgetError as error:
        least = fewest_cycles(problem)
        raise BudgetError(f"no plan meets {budget} cycles on {design.accelerator}; the fewest are {least}") from error
    dense = sum(float(scores[a.name].sum()) for a in program.axes if a.prunable) or 1.0
    sizes = {a.name: solution.sizes.get(a.name, a.size) for a in program.axes}
    kept = sum(float(retained(scores[a.name])[sizes[a.name]]) for a in program.axes if a.prunable) / dense
    return Allocation(design, plan_of(program, scores, sizes), sizes, round(solution.seconds), kept)


def cycle_problem(
    program: Program,
    parts: Partition,
    candidates: Mapping[str, Sequence[int]],
    pricer: Pricer,
    scores: Scores,
    constraints: Sequence[Constraint] = (),
) -> Problem:
    """The allocation problem in cycles."""
    tables = cycle_tables(program, parts, with_dense(program, candidates), pricer)
    worth = {name: retained(values) for name, values in scores.items()}
    return width_problem(program, worth, with_dense(program, candidates), tables, uniform=uniform_groups(program, constraints))


def fewest_cycles(problem: Problem) -> int:
    """Cycles with every axis at its smallest size."""
    smallest = {name: next(s for s in v.sizes if s or len(v.sizes) == 1) for name, v in problem.variables.items()}
    return round(evaluate(problem, smallest).seconds)


def best_allocation(
    program: Program,
    parts: Partition,
    designs: Sequence[Design],
    pricers: Mapping[Accelerator, Pricer],
    scores: Scores,
    budget: int,
    constraints: Sequence[Constraint] = (),
) -> Allocation:
    """The design and the sizes that together keep the most saliency within a budget of cycles: each array has its own grid.

    Raises BudgetError where no design meets it.
    """
    found: list[Allocation] = []
    failures: list[BudgetError] = []
    for design in designs:
        try:
            found.append(allocate(program, parts, design, pricers[design.accelerator], scores, budget, constraints))
        except BudgetError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    return max(found, key=lambda a: (a.kept, -a.cycles))
