"""Latency-aware global ranking (NViT): the cheapest loss for the latency that it frees goes first, wherever it is."""

import numpy as np

from billhook.ir.errors import BudgetError

from .allocation_front import unreachable
from .allocation_model import build_model
from .allocation_problem import Problem
from .allocation_search import Swaps


def threshold(problem: Problem, goal: float, eta: float = 1.0) -> dict[str, int]:
    """Shrink one axis by one candidate at a time, the one of lowest (score - eta * latency gain) per index, until within `goal` seconds.

    NViT (Yang et al. 2023) ranks all groups by importance minus eta times what removing them saves, removes the lowest, and looks
    the latencies up again. eta: in units of the whole network's value over its latency, so that it means the same everywhere.
    Raises BudgetError where even the smallest sizes take longer.
    """
    model = build_model(problem)
    swaps = Swaps(model)
    choice = np.array([n - 1 for n in model.states[: model.decisions]], dtype=np.intp)
    total = model.totals(choice[None])[0][0]
    rate = eta * abs(total[0]) / total[1]
    first = np.cumsum([0, *model.states[: model.decisions]])[:-1]
    sizes = [np.array(s) for s in model.sizes]
    while total[1] > goal:
        after, fine = swaps.evaluate(choice[None])
        down = np.flatnonzero(choice > 0)
        number = first[down] + choice[down] - 1
        down, number = down[fine[0, number]], number[fine[0, number]]
        if not len(down):
            raise BudgetError(unreachable(goal, float(total[1])))
        count = np.array([sizes[d][choice[d]] - sizes[d][choice[d] - 1] for d in down])
        rank = (total[0] - after[0, number, 0] - rate * (total[1] - after[0, number, 1])) / count
        best = int(np.argmin(rank))
        choice[down[best]] -= 1
        total = after[0, number[best]]
    return model.chosen(choice)
