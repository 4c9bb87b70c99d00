"""Peak activation memory as a limit of the allocation: exact, by naming only the moments that matter.

The peak is within a limit if the values alive are, at every moment of a run. Each moment is a sum of tables, so it could be a budget of
its own, but a network has hundreds and few ever bind. So the problem is solved without any, then with those that its plan exceeds, until
the plan exceeds none: it is the best of a problem with fewer limits, and keeps them all (row generation; Dantzig, Fulkerson and Johnson
1954).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from billhook.costmodel.activation_memory import ActivationMemory
from billhook.ir.errors import BudgetError, OptionError

from .allocation_problem import AnyFactor, Problem, Resource
from .allocation_solution import Solution
from .width_problem import table_factor

AT_ONCE = 2  # moments added per round: neighbours say much the same


@dataclass(frozen=True, slots=True, eq=False)
class MemoryLimit:
    """At most so many bytes of activations at any moment."""

    memory: ActivationMemory
    candidates: Mapping[str, Sequence[int]]
    bytes: float

    def __post_init__(self) -> None:
        if not self.bytes > 0:
            raise OptionError(f"the memory limit must be greater than 0 bytes, not {self.bytes:g}")

    def peaks(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Bytes alive at each moment, by these sizes of axes with a choice; the others have their one candidate."""
        return self.memory.peaks({**{n: s[-1] for n, s in self.candidates.items()}, **sizes})

    def resource(self, problem: Problem, moment: str) -> Resource:
        """One moment as a budget of the problem."""
        factors: list[AnyFactor] = []
        constant = 0.0
        for name in sorted(self.memory.moments[moment]):
            tables = self.memory.tables[name]
            constant += tables.constant
            factors += [table_factor(t, self.candidates, problem.variables) for t in tables.tables]
        return Resource(f"bytes alive at {moment}", self.bytes, tuple(factors), constant)


def solve_within_memory(
    problem: Problem, budget: float, limit: MemoryLimit, solve: Callable[[Problem, float], Solution], known: tuple[str, ...] = ()
) -> tuple[Solution, tuple[str, ...]]:
    """What `solve` finds for a budget in seconds with the peak within the limit, and the moments that it took to get there.

    known: moments to begin with, such as those of an earlier call. Raises BudgetError where no plan meets both.
    """
    moments = tuple(dict.fromkeys(known))
    while True:
        try:
            found = solve(bounded(problem, limit, moments), budget)
        except BudgetError as error:
            raise _said(error, limit, moments) from error
        over = {n: b for n, b in limit.peaks(found.sizes).items() if b > limit.bytes * (1 + 1e-9) and n not in moments}
        if not over:
            return found, moments
        moments += tuple(sorted(over, key=lambda n: -over[n])[:AT_ONCE])


def bounded(problem: Problem, limit: MemoryLimit, moments: Sequence[str]) -> Problem:
    """The problem with the limit at these moments."""
    return replace(problem, resources=(*problem.resources, *(limit.resource(problem, m) for m in moments)))


def _said(error: BudgetError, limit: MemoryLimit, moments: Sequence[str]) -> BudgetError:
    if not moments:
        return error
    return BudgetError(f"with at most {limit.bytes / 1e6:.3f} MB of activations, {error}; or allow more memory")
