"""The latency budget for schedules: the shared allocation over the cost tables that there are."""

from collections.abc import Mapping, Sequence

import numpy as np

from billhook.costmodel.network_cost import CostTables
from billhook.ir.errors import BudgetError
from billhook.ir.program import Program

from .allocate import evaluate, solve
from .allocation_problem import Problem
from .saliency import Floats, Scores, best_indices, retained
from .schedule import PerAxis
from .width_problem import width_problem


class LatencyBudget:
    """Allocations by any scores within any target, and the slope of the latency surface. Seconds are those of the tables."""

    def __init__(self, program: Program, candidates: Mapping[str, Sequence[int]], tables: CostTables, goal: float) -> None:
        self.program, self.candidates, self.tables, self.goal = program, candidates, tables, goal
        self._free = [a.name for a in program.axes if len(candidates[a.name]) > 1]
        self._costs = self._problem({name: np.zeros(self.program.axis(name).size + 1) for name in self._free})
        self.dense = self.seconds({})  # of the largest sizes

    def kept(self, scores: Scores, target: float) -> PerAxis:
        """Masks of what an allocation by the sums of the scores keeps; of the fastest plan where nothing is within the target."""
        problem = self._problem({name: retained(scores[name]) for name in self._free})
        try:
            sizes = solve(problem, target).sizes
        except BudgetError:
            if target <= self.goal:
                raise
            sizes = solve(problem, self.goal).sizes
        masks: dict[str, Floats] = {}
        for name in self._free:
            masks[name] = np.zeros(self.program.axis(name).size)
            masks[name][list(best_indices(scores[name], sizes[name]))] = 1.0
        return masks

    def seconds(self, sizes: Mapping[str, int]) -> float:
        """Latency at the candidates next above these sizes; axes that are not named are whole."""
        return evaluate(self._costs, self._candidates(sizes)).seconds

    def slopes(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """For each axis the difference to its next smaller candidate (at the smallest: to the next larger), per index."""
        here = self._candidates(sizes)
        found: dict[str, float] = {}
        for name in self._free:
            offered = self.candidates[name]
            place = offered.index(here[name])
            low, high = (place - 1, place) if place else (0, 1)
            ends = [evaluate(self._costs, {**here, name: offered[i]}).seconds for i in (low, high)]
            found[name] = (ends[1] - ends[0]) / (offered[high] - offered[low])
        return found

    def _candidates(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {n: next((c for c in self.candidates[n] if c >= sizes.get(n, 1 << 62)), self.candidates[n][-1]) for n in self._free}

    def _problem(self, worth: Mapping[str, Floats]) -> Problem:
        return width_problem(self.program, worth, self.candidates, self.tables)
