"""The same share of every axis: the plan that every other one has to beat."""

import numpy as np

from billhook.ir.errors import BudgetError

from .allocation_front import unreachable
from .allocation_model import build_model
from .allocation_problem import Ints, Problem

_SHARES = 2001


def uniform_share(problem: Problem, goal: float) -> dict[str, int]:
    """For every axis the candidate nearest to one common share of its largest, as large a share as `goal` seconds allow; never 0.

    Raises BudgetError where no share is within the goal.
    """
    model = build_model(problem)
    shares = np.linspace(0.0, 1.0, _SHARES)
    columns: list[Ints] = []
    for sizes in model.sizes:
        offered = np.array(sizes)
        distance = np.abs(offered[None, :] - shares[:, None] * offered[-1])
        distance[:, offered == 0] = np.inf
        columns.append(distance.argmin(axis=1) if len(offered) > 1 or offered[0] else np.zeros(_SHARES, dtype=np.intp))
    choices = np.stack(columns, axis=1)
    totals, allowed = model.totals(choices)
    within = np.flatnonzero(allowed & (totals[:, 1] <= goal))
    if not len(within):
        raise BudgetError(unreachable(goal, float(totals[:, 1].min())))
    return model.chosen(choices[within[-1]])
