"""Several budgets at once on a traced network, against enumeration of all its plans."""

from itertools import product
from typing import Any

import pytest
import torch
from tiny import example, tiny

import billhook as bh
from billhook.costmodel.network_cost import CostTables
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.costmodel.work import kernel_bytes, weight_bytes
from billhook.ir.errors import OptionError
from billhook.ir.target import Target
from billhook.passes.allocate import evaluate, solve
from billhook.passes.allocation_budgets import latency_budget, weight_budget, with_budgets, working_set_budget
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.saliency import retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem


def at(kernels: Any, sizes: dict[str, int], cost: Any) -> list[float]:
    """The cost of every kernel that runs at these sizes."""
    found = [k.family.workload(tuple(c.at(sizes) for c in k.family.coordinates)) for k in kernels]
    return [float(cost(w)) for w in found if w is not None]


def test_the_plan_keeps_all_budgets_and_none_is_better() -> None:
    model = tiny()
    program = bh.trace(model, example())
    candidates = candidate_sizes(program, Target(), blocks=False)
    kernels = network_kernels(program, candidates, Target())
    costs, weights, sets = static_tables(kernels, candidates, Roofline(), weight_bytes, kernel_bytes)
    other = bh.trace(model, torch.randn(1, 1, 16, 32))
    wider = static_tables(network_kernels(other, candidates, Target()), candidates, Roofline())[0]
    worth = {n: retained(s) for n, s in score_axes("l2", program, model, None).items()}
    base = width_problem(program, worth, candidates, costs)
    names = list(base.variables)
    plans = [dict(zip(names, s, strict=True)) for s in product(*(base.variables[n].sizes for n in names))]
    whole = {n: v.sizes[-1] for n, v in base.variables.items()}
    full = {a.name: a.size for a in program.axes}
    limits = {
        "seconds": 0.8 * evaluate(base, whole).seconds,
        "weights": 0.6 * sum(at(kernels, full, weight_bytes)),
        "peak": 0.9 * max(at(kernels, full, kernel_bytes)),
        "wide": 0.7 * evaluate(width_problem(other, worth, candidates, wider), whole).seconds,
    }
    budgets = weight_budget(weights, limits["weights"]), working_set_budget(sets, limits["peak"])
    problem = with_budgets(base, candidates, [*budgets, latency_budget("wide", wider, limits["wide"])])
    found = solve(problem, limits["seconds"], gap=1e-4)

    def fits(plan: dict[str, int]) -> bool:
        sizes = {**full, **plan}
        return (
            evaluate(base, plan).seconds <= limits["seconds"]
            and sum(at(kernels, sizes, weight_bytes)) <= limits["weights"]
            and max(at(kernels, sizes, kernel_bytes)) <= limits["peak"]
            and evaluate(width_problem(other, worth, candidates, wider), plan).seconds <= limits["wide"]
        )

    assert fits(dict(found.sizes))
    best = max(evaluate(base, p).value for p in plans if fits(p))
    assert found.value >= best * (1 - 1e-3)
    assert found.value < max(evaluate(base, p).value for p in plans if evaluate(base, p).seconds <= limits["seconds"])  # they bind


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(OptionError, match="greater than 0"):
        weight_budget(CostTables((), 0.0), 0.0)
