"""NetAdapt: one axis per iteration, the one whose cut hurts least."""

from collections.abc import Callable, Mapping

import numpy as np

from billhook.ir.errors import BudgetError, OptionError

from .allocation_front import unreachable
from .allocation_model import build_model
from .allocation_problem import Problem
from .allocation_search import Swaps


def adapt(problem: Problem, goal: float, steps: int, loss: Callable[[Mapping[str, int]], float] | None = None) -> dict[str, int]:
    """Reduce the latency by an equal amount per iteration, each time by cutting a single axis as far as that takes.

    NetAdapt (Yang et al. 2018): for every axis the largest size that frees enough, then the proposal of lowest loss. loss: measured loss
    of sizes (after a short fine-tuning, if the caller does one); without it the retained value decides. An iteration in which no single
    axis frees enough takes the one that frees most. Raises BudgetError where nothing is left to cut.
    """
    if steps < 1:
        raise OptionError(f"netadapt needs at least 1 iteration, not {steps}")
    model = build_model(problem)
    swaps = Swaps(model)
    choice = np.array([n - 1 for n in model.states[: model.decisions]], dtype=np.intp)
    seconds = float(model.totals(choice[None])[0][0, 1])
    step = max(seconds - goal, 0.0) / steps
    while seconds > goal:
        after, fine = swaps.evaluate(choice[None])
        smaller = fine[0] & (swaps.state < choice[swaps.owner]) & (after[0, :, 1] < seconds)
        if not smaller.any():
            raise BudgetError(unreachable(goal, seconds))
        enough = smaller & (after[0, :, 1] <= max(seconds - step, goal))
        if enough.any():
            numbers = np.flatnonzero(enough)
            proposals = [int(n[-1]) for d in range(model.decisions) if len(n := numbers[swaps.owner[numbers] == d])]
        else:
            proposals = [int(np.argmin(np.where(smaller, after[0, :, 1], np.inf)))]
        plans = swaps.apply(choice[None], np.zeros(len(proposals), dtype=np.intp), np.array(proposals))
        losses = [-after[0, n, 0] if loss is None else loss(model.chosen(p)) for n, p in zip(proposals, plans, strict=True)]
        best = int(np.argmin(losses))
        choice, seconds = plans[best], float(after[0, proposals[best], 1])
    return model.chosen(choice)
