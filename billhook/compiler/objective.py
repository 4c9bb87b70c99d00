"""The least latency or memory that retains a floor, as a rule of the closed loop, and what was attained in the end.

The objectives of AAP (adaptive activation-based pruning, 2022) by exact solves (`passes.allocation_objective`); the floor is a share of
the importance that the default's worths add up to.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from billhook.goals import Objective
from billhook.ir.errors import BudgetError
from billhook.passes.allocate import Problem, Solution, evaluate
from billhook.passes.allocation_objective import Least, floor_of, least_latency, least_memory

from .memory import MemoryRule

_SCALES = {"latency": (1e3, "ms predicted"), "memory": (1e-6, "MB alive at once")}


@dataclass(frozen=True, slots=True)
class Attained:
    """What was minimised, the share retained, the amount (seconds predicted, or bytes alive at once), and below what no plan comes."""

    objective: Objective
    share: float
    amount: float
    bound: float

    @property
    def gap(self) -> float:
        return max(self.amount - self.bound, 0.0) / self.amount if self.amount > 0 else 0.0

    def __str__(self) -> str:
        scale, unit = _SCALES[self.objective.name]
        least = f"no plan that retains {self.objective.floor:.2%} takes less than {self.bound * scale:.4f}"
        return f"retained {self.share:.2%} with {self.amount * scale:.4f} {unit}, {least}: gap {self.gap:.4%}"


class LeastLatency:
    """The fastest sizes that retain the floor, whatever the goal: what is too slow is found out by measuring."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __call__(self, problem: Problem, _goal: float, /) -> Solution:
        return least_latency(problem, floor_of(problem, self.objective.floor)).solution

    def attained(self, problem: Problem, sizes: Mapping[str, int], /) -> Attained:
        """The proof for sizes, by the costs as known in the end."""
        best = least_latency(problem, floor_of(problem, self.objective.floor))
        totals = evaluate(problem, sizes)
        return Attained(self.objective, totals.value / best.whole, totals.seconds, min(best.bound, totals.seconds))


class LeastMemory:
    """The sizes with the smallest peak of activations that retain the floor within the goal (seconds)."""

    def __init__(self, objective: Objective, memory: MemoryRule) -> None:
        self.objective, self._memory = objective, memory
        self._found: dict[frozenset[tuple[str, int]], Least] = {}

    def __call__(self, problem: Problem, goal: float, /) -> Solution:
        limit = self._memory.limit
        found = least_memory(problem, floor_of(problem, self.objective.floor), goal, limit)
        planned = self._memory.planned(found.solution.sizes)
        if planned > limit.bytes:
            over = f"{planned / 1e6:.3f} MB planned for {found.amount / 1e6:.3f} MB alive at once, of {limit.bytes / 1e6:.3f} MB"
            raise BudgetError(f"the plan of least memory that retains {self.objective.floor:.2%} does not fit: {over}; allow more memory")
        self._found[frozenset(found.solution.sizes.items())] = found
        return found.solution

    def gain(self, found: Solution) -> float:
        """Of two solutions the one with the larger gain takes less memory."""
        return -self._found[frozenset(found.sizes.items())].amount

    def attained(self, _problem: Problem, sizes: Mapping[str, int], /) -> Attained:
        """The proof for sizes that were chosen before, by the costs as known then."""
        found = self._found[frozenset(sizes.items())]
        return Attained(self.objective, found.share, found.amount, min(found.bound, found.amount))
