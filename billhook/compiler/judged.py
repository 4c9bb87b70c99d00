"""Our allocation in the closed loop, where plans can be judged: at the goal and just below it, whichever loses least once repaired."""

from dataclasses import replace

from billhook.ir.errors import BudgetError
from billhook.passes.allocate import Problem, Solution, solve
from billhook.passes.allocation_solution import relative_gap
from billhook.passes.judge import Judge
from billhook.passes.saliency import Scores

BELOW = (1.0, 0.9925, 0.985)  # of the goal: less time than that is not given up for a better plan


class JudgedRule:
    """A rule of sizes for seconds. A little less time may be a branch less, after which another split of the widths is the better one."""

    def __init__(self, scores: Scores, judge: Judge) -> None:
        self._scores, self._judge = scores, judge

    def __call__(self, problem: Problem, goal: float, /) -> Solution:
        """The plan that loses least of the best ones for goals just below `goal` seconds, the largest of equals. Raises BudgetError.

        Its bound is that of the whole goal, so the gap includes what it gives up in worth.
        """
        first = solve(problem, goal)
        offered = [first]
        for share in BELOW[1:]:
            try:
                offered.append(solve(problem, share * goal))
            except BudgetError:  # nothing is that fast
                break
        best = min(offered, key=lambda found: self._judge(self._scores, found.sizes))
        return replace(best, budget=goal, bound=first.bound, gap=relative_gap(best.value, first.bound))
