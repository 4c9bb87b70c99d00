"""Allocation in several steps towards the budget, each from the plan of the one before (HALP)."""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from billhook.ir.errors import OptionError

from .allocation_problem import Problem, restrict

Sizes: TypeAlias = Mapping[str, int]
Step: TypeAlias = Callable[[Problem, Sizes, float], Sizes]  # (what is still offered, present sizes, target) -> next sizes


def exponential_targets(start: float, goal: float, steps: int) -> tuple[float, ...]:
    """Targets of steps 1 .. steps: exp(a * ln goal + (1 - a) * ln start) with a = step / steps (HALP, Shen et al. 2022)."""
    if steps < 1:
        raise OptionError(f"an iterative allocation needs at least 1 step, not {steps}")
    return tuple(math.exp(t / steps * math.log(goal) + (1 - t / steps) * math.log(start)) for t in range(1, steps + 1))


def in_steps(problem: Problem, start: float, goal: float, steps: int, step: Step) -> dict[str, int]:
    """Sizes after all steps; what a step has removed does not come back. start: the latency of the largest sizes."""
    sizes = {name: variable.sizes[-1] for name, variable in problem.variables.items()}
    for target in exponential_targets(start, min(goal, start), steps):
        sizes = dict(step(at_most(problem, sizes), sizes, target))
    return sizes


def at_most(problem: Problem, sizes: Sizes) -> Problem:
    """The problem with only the candidates up to the given sizes."""
    return restrict(problem, {n: np.flatnonzero(np.array(v.sizes) <= sizes[n]) for n, v in problem.variables.items()})
