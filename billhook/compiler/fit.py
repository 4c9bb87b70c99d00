"""The closed loop: solve, cut, build, measure, recalibrate, until the measured network is within the budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from billhook.costmodel.calibration import Calibration, calibrate
from billhook.costmodel.network_cost import NetworkCost
from billhook.ir.errors import BudgetError
from billhook.ir.latency import Latency
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.passes.allocate import Front, Problem, Solution, front, solve
from billhook.passes.allocation_budgets import ExtraBudget, with_budgets
from billhook.passes.candidate_sizes import dense_sizes, uniform_sizes, whole_sizes
from billhook.passes.judge import Judge
from billhook.passes.prune import Pruned, carry_out
from billhook.passes.removal import data_flow, keeps_paths
from billhook.passes.saliency import Floats, Scores
from billhook.passes.width_problem import plan_of, width_problem

from .aim import aim
from .engine import Build, Engine

ROUNDS = 3  # to come close to the budget
MORE = 2  # rounds besides, where no plan so far is within the budget, or none is near it
INNER = 2  # solve, measure the chosen kernels, solve again
CLOSE = 0.97  # a plan below this share of the budget leaves something unused
FAR = 0.9  # and below this one so much that more rounds are worth their time
MARGIN = 0.985  # aim at the middle of what is accepted: two measurements of one network differ by about a percent
JUDGED_MARGIN = 0.9925  # where plans are judged: their rule looks 1.5% down from its goal, and this is half of that above MARGIN
BACK_OFF = 0.98  # aim so much lower where the plan would be one that was measured above the budget, and in each round besides
BISECTIONS = 8
SETTLED = 0.01  # relative change of the predicted latency by which the inner loop ends

Sizes = Mapping[str, int]
MeasureBuild = Callable[[Build], Latency]
Rule = Callable[[Problem, float], Solution]  # sizes for a goal in seconds


@dataclass(frozen=True)
class Round:
    """One turn of the loop: sizes chosen for a goal (seconds), what was expected of them, and what they take."""

    sizes: Sizes
    goal: float
    predicted: Latency
    measured: Latency


Found: TypeAlias = tuple[Round, Solution, Pruned, Build]


@dataclass(frozen=True)
class Fitted:
    """The plan that was accepted, with its proof, its build, and the way to it."""

    plan: Plan
    solution: Solution
    predicted: Latency
    measured: Latency
    pruned: Pruned
    build: Build
    front: Front
    calibration: Calibration
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Values:
    """What is to be retained. scores rank the indices of each axis; worth V(k), k = 0 .. size, compares the axes.

    judge: of the plans that these lead to, where there is data.
    """

    scores: Scores
    worth: Mapping[str, Floats]
    judge: Judge | None = None


class Fitter:
    """Chooses sizes for budgets, with values and costs fixed.

    limited: adds to a problem the further limits that `rule` keeps. budgets: further limits of every problem.
    """

    def __init__(
        self,
        engine: Engine,
        program: Program,
        values: Values,
        cost: NetworkCost,
        candidates: Mapping[str, Sequence[int]],
        uniform: Sequence[tuple[str, ...]] = (),
        rule: Rule = solve,
        limited: Callable[[Problem], Problem] = lambda problem: problem,
        budgets: Sequence[ExtraBudget] = (),
    ) -> None:
        self.engine, self.program, self.values, self.cost, self.candidates = engine, program, values, cost, candidates
        self.whole, self.uniform, self.rule, self._limited = dense_sizes(program), uniform, rule, limited
        self._budgets = budgets
        self.pairs: list[tuple[Latency, Latency]] = []
        self._keep_one: list[tuple[str, ...]] = []
        self._flow = data_flow(program)

    @property
    def calibration(self) -> Calibration:
        return calibrate(self.pairs)

    def learn(self, sizes: Sizes, measured: Latency) -> None:
        """Take a measured network into account, with its kernels as they are measured alone (the build has had them timed)."""
        plan = {**self.whole, **sizes}
        self.cost.refine([plan], self.engine.progress)
        self.pairs.append((self.cost.predict(plan), measured))

    def goal(self, seconds: float) -> float:
        """What the calibrated prediction of a plan has to be for it to take so many seconds, by the measured networks near it."""
        if not self.pairs:
            return seconds
        raw = aim(seconds, [(predicted.seconds, measured.seconds) for predicted, measured in self.pairs])
        return self.calibration.scale * raw + self.calibration.offset

    def expect(self, sizes: Sizes) -> Latency:
        """Calibrated prediction."""
        return self.calibration.apply(self.cost.predict({**self.whole, **sizes}))

    def solve(self, goal: float) -> Solution:
        """The best sizes within `goal` seconds, by kernels that were measured where it matters. Raises BudgetError."""
        solution = self._solve(goal)
        for _ in range(INNER):
            self.cost.refine([{**self.whole, **solution.sizes}], self.engine.progress)
            before, solution = solution, self._solve(goal)
            if solution.sizes == before.sizes or abs(self.expect(before.sizes).seconds / goal - 1) < SETTLED:
                break
        return solution

    @property
    def margin(self) -> float:
        """The share of a budget to aim at."""
        return MARGIN if self.values.judge is None else JUDGED_MARGIN

    def gain(self, solution: Solution) -> float:
        """Of plans within the budget the one that loses least, where that can be judged, else the most valuable, has the largest."""
        judge = self.values.judge
        return solution.value if judge is None else -judge(self.values.scores, solution.sizes)

    def front(self) -> Front:
        """Every budget at once, with the costs as known by now, within the further limits."""
        return front(self.problem())

    def problem(self) -> Problem:
        """The problem with the costs as known by now, within all limits."""
        return self._limited(self._problem())

    def _problem(self) -> Problem:
        tables = self.cost.tables(self.candidates, self.calibration)
        problem = width_problem(self.program, self.values.worth, self.candidates, tables, keep_one=self._keep_one, uniform=self.uniform)
        return with_budgets(problem, self.candidates, self._budgets)

    def _solve(self, goal: float) -> Solution:
        while True:
            solution = self.rule(self._problem(), goal)
            gone = tuple(name for name, size in solution.sizes.items() if size == 0)
            if not gone or keeps_paths(self.program, gone, self._flow):
                return solution
            self._keep_one.append(gone)

    def cut(self, sizes: Sizes) -> tuple[Pruned, Build]:
        """Carry a choice out and compile it."""
        pruned = carry_out(self.program, plan_of(self.program, self.values.scores, sizes))
        return pruned, self.engine.build(pruned.program.graph, self.program.example)


def fit(fitter: Fitter, budget: float, measure: MeasureBuild, gain: Callable[[Solution], float] | None = None) -> Fitted:
    """Solve, cut, build, measure, and aim anew between what was measured, until the latency is in [CLOSE, 1] x budget.

    At most `ROUNDS` times, and `MORE` times where nothing is within [FAR, 1] x budget by then; of the plans within the budget the one of
    most `gain` (by default the fitter's) is taken. Raises BudgetError where no plan meets the budget, with the smallest latency that
    is reachable.
    """
    gain = gain or fitter.gain
    rounds: list[Round] = []
    best: Found | None = None
    margin = fitter.margin
    for turn in range(ROUNDS + MORE):
        if turn >= ROUNDS:
            if best is not None and best[0].measured.seconds >= FAR * budget:
                break
            margin *= BACK_OFF
        goal = fitter.goal(margin * budget)
        solution = fitter.solve(goal)
        if any(solution.sizes == r.sizes for r in rounds):  # widths come in steps
            if best is not None:
                break
            margin *= BACK_OFF
            continue
        predicted = fitter.expect(solution.sizes).scaled(margin * budget / goal)  # plans for this goal are expected to take that
        pruned, build = fitter.cut(solution.sizes)
        measured = measure(build)
        rounds.append(Round(solution.sizes, goal, predicted, measured))
        if measured.seconds <= budget and (best is None or gain(solution) > gain(best[1])):
            best = rounds[-1], solution, pruned, build
        if CLOSE * budget <= measured.seconds <= budget:
            break
        fitter.learn(solution.sizes, measured)
    if best is None:
        reached = min(rounds, key=lambda r: r.measured.seconds)
        raise BudgetError(f"the budget of {budget * 1e3:.3f} ms was missed: the nearest plan takes {reached.measured}; allow more")
    return _fitted(fitter, best, rounds)


def fit_fastest(fitter: Fitter, cap: float, measure: MeasureBuild) -> Fitted:
    """The same for a rule that seeks the least latency: solve, cut, build, measure, until its plan is one that was measured before.

    At most `ROUNDS` times, with the kernels' costs as they are known by then; the fastest is taken. Raises BudgetError where it takes
    longer than `cap` seconds.
    """
    rounds: list[Round] = []
    best: Found | None = None
    for _ in range(ROUNDS):
        solution = fitter.solve(cap)
        if any(solution.sizes == r.sizes for r in rounds):
            break
        predicted = fitter.expect(solution.sizes)
        pruned, build = fitter.cut(solution.sizes)
        rounds.append(Round(solution.sizes, cap, predicted, measure(build)))
        if best is None or rounds[-1].measured.seconds < best[0].measured.seconds:
            best = rounds[-1], solution, pruned, build
        fitter.learn(solution.sizes, rounds[-1].measured)
    assert best is not None
    if best[0].measured.seconds > cap:
        raise BudgetError(
            f"the least latency that retains the floor is {best[0].measured}, above {cap * 1e3:.3f} ms; lower the floor, or allow more"
        )
    return _fitted(fitter, best, rounds)


def _fitted(fitter: Fitter, best: Found, rounds: Sequence[Round]) -> Fitted:
    chosen, solution, pruned, build = best
    return Fitted(
        pruned.plan, solution, chosen.predicted, chosen.measured, pruned, build, fitter.front(), fitter.calibration, tuple(rounds)
    )


def uniform_at(cost: NetworkCost, candidates: Mapping[str, Sequence[int]], goal: float) -> dict[str, int]:
    """The largest uniform sizes whose predicted latency is within `goal` seconds (else the smallest ones), for every axis."""
    whole = whole_sizes(candidates)
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        within = cost.predict({**whole, **uniform_sizes(candidates, middle)}).seconds <= goal
        low, high = (middle, high) if within else (low, middle)
    return {**whole, **uniform_sizes(candidates, low)}
