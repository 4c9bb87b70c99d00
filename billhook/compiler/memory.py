"""A limit on activation memory, kept exactly: what the target's planner gives the chosen network is asked before anything is built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.options import MemoryBudget
from billhook.passes.allocate import Problem, Solution, solve
from billhook.passes.allocation_memory import MemoryLimit, bounded, solve_within_memory
from billhook.passes.allocation_solution import relative_gap
from billhook.passes.cut import cut_graph
from billhook.passes.saliency import Scores
from billhook.passes.width_problem import plan_of

from .engine import Engine
from .fit import Rule

STEP = 0.98  # of the limit for the sums of what is alive, where a plan takes more: at least so much less


@dataclass(frozen=True, slots=True)
class ActivationBytes:
    """What was allowed, what a build of the plan allocates for values between kernels, and what the dense network's does."""

    limit: float
    planned: int
    dense: int

    def __str__(self) -> str:
        return f"{self.planned / 1e6:.3f} MB of activations planned, at most {self.limit / 1e6:.3f} MB; dense {self.dense / 1e6:.3f} MB"


class MemoryRule:
    """Our allocation, or another rule of sizes for seconds, with a limit on activation memory: a rule for the closed loop."""

    def __init__(
        self,
        engine: Engine,
        program: Program,
        scores: Scores,
        candidates: Mapping[str, Sequence[int]],
        budget: MemoryBudget,
        rule: Rule = solve,
    ) -> None:
        self._engine, self._program, self._scores, self._rule = engine, program, scores, rule
        self._known: dict[frozenset[tuple[str, int]], int] = {}
        self._moments: tuple[str, ...] = ()
        self.dense = self.planned({})
        self.limit = MemoryLimit(engine.activation_memory(program, candidates), candidates, budget.bytes(self.dense))

    def __call__(self, problem: Problem, goal: float, /) -> Solution:
        """The best sizes for a goal in seconds whose build stays within the limit.

        A build takes at least what is alive at once, by which the allocation is solved, and often more: then that has to be less. The bound
        is that of the first solution, so the gap includes what the planner wastes. Raises BudgetError where no plan meets both.
        """
        limit, bound = self.limit, None
        while True:
            found, self._moments = solve_within_memory(problem, goal, limit, self._rule, self._moments)
            bound = found.bound if bound is None else bound
            planned = self.planned(found.sizes)
            if planned <= self.limit.bytes:
                return replace(found, bound=bound, gap=relative_gap(found.value, bound))
            limit = replace(limit, bytes=limit.bytes * min(self.limit.bytes / planned, STEP))

    def limited(self, problem: Problem) -> Problem:
        """The problem with the limit at the moments that have mattered so far: for the front."""
        return bounded(problem, self.limit, self._moments)

    def planned(self, sizes: Mapping[str, int]) -> int:
        """Bytes that a build with these sizes allocates for the values between its kernels."""
        key = frozenset(sizes.items())
        if key not in self._known:
            plan = plan_of(self._program, self._scores, sizes) if sizes else Plan({})
            self._known[key] = self._engine.activation_bytes(cut_graph(self._program, plan), self._program.example)
        return self._known[key]

    def report(self, network: Network) -> ActivationBytes:
        """The three numbers for a network that was built."""
        return ActivationBytes(self.limit.bytes, self._engine.backend.activation_bytes(network), self.dense)
