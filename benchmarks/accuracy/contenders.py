"""Who competes: ours and the literature's presets over one allocation, and a criterion's plain sums under our exact allocation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from billhook.compiler.judged import JudgedRule
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes.allocate import Problem, evaluate, front, solve
from billhook.passes.allocation_front import Point
from billhook.passes.allocation_presets import PRESETS, Preset, Task, choose
from billhook.passes.allocation_task import preset_task
from billhook.passes.batches import split
from billhook.passes.cut import cut_graph
from billhook.passes.judge import Judge
from billhook.passes.plan_choice import best_ranked
from billhook.passes.probe import plan_loss, probed_worth
from billhook.passes.saliency import Data, Floats, Scores, best_indices, retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem

from .aim import nearest
from .bench import Bench
from .data import everywhere
from .tasks import Trained
from .torch_pruning import IMPORTANCES

Chooser: TypeAlias = Callable[[float], dict[str, int]]
PEERS = tuple(IMPORTANCES)
OURS = "ours"
CONTENDERS = (OURS, "uniform", "halp", "smcp", "mdp", "nvit", "flops", *PEERS)
SCORED, SCORED_BATCH = 8, 64
PROBED, PROBED_BATCH = 2, 100


@dataclass(slots=True)
class Seen:
    """What a contender may look at: training samples only. scores: by criterion, each computed once."""

    bench: Bench
    trained: Trained
    scores: dict[str, Scores] = field(default_factory=dict)

    def scored(self, criterion: str) -> Scores:
        """Scores of the trained network by a criterion."""
        if criterion not in self.scores:
            program = self.program
            self.scores[criterion] = score_axes(criterion, program, cut_graph(program, Plan({})), self.data(SCORED))
        return self.scores[criterion]

    def data(self, batches: int, size: int = SCORED_BATCH) -> Data:
        """The first batches of the training samples."""
        return Data(self.trained.train.loader(size), everywhere, batches)

    @property
    def program(self) -> Program:
        """The trained network's own program."""
        return self.trained.program

    def loss(self, plan: Plan) -> float:
        """Loss of a plan on calibration samples, by batch statistics."""
        data = [split(b) for b in self.trained.train.first(PROBED * PROBED_BATCH).loader(PROBED_BATCH)]
        return plan_loss(self.program, plan, data, everywhere)


class Ranking:
    """Scores and worths of one method on one network, and the sizes that it takes for a share of the dense latency."""

    def __init__(self, preset: Preset, seen: Seen, *, chooses: bool = False) -> None:
        """chooses: among several worths, by the loss of the repaired network (decision 18)."""
        self.preset, self.seen, self.chooses = preset, seen, chooses
        self.scores: Scores = seen.scored(preset.criterion)
        self.worth: Mapping[str, Floats] = {name: retained(s) for name, s in self.scores.items()}
        self._points: Sequence[Point] = ()
        self._stretch = 1.0  # of the goal, by which this method's cost model is off
        self._judge: Judge | None = None

    def prepare(self, share: float) -> None:
        """Probe and choose, where this method does, for networks that are predicted to take `share` of the dense latency."""
        if self.preset.probes:
            self.probe(share)
        if self.chooses:
            self._choose(share)

    def sizes(self, share: float) -> dict[str, int]:
        """Sizes at which the network is predicted to take `share` of the dense latency."""
        bench, choose = self.seen.bench, self._chooser()
        goal = bench.goal(share)

        def make(setting: float) -> dict[str, int]:
            self._stretch = setting / goal
            return choose(setting)

        found = nearest(make, bench.predicted, share, self._stretch * goal, 0.2 * goal, 4 * goal, rank=self._lost)
        bench.refine(found)  # its kernels are measured where they are built anyway: the next plan is chosen by them
        return found

    def _choose(self, share: float) -> None:
        """Plain scores, probes, mixtures and scores taken anew on the way: whichever loses least once it is repaired."""
        bench, program = self.seen.bench, self.seen.program

        def sizes(worth: Mapping[str, Floats], seconds: float) -> Mapping[str, int]:
            return solve(self.problem(worth), seconds).sizes

        self._judge = Judge(program, self.seen.data(PROBED, PROBED_BATCH))
        seconds = bench.goal(share), bench.goal(1.0)
        best = best_ranked(self.preset.criterion, program, self.scores, self.worth, sizes, seconds, self.seen.data(SCORED), self._judge)
        self.scores, self.worth = best.scores, best.worth

    def _lost(self, sizes: Mapping[str, int]) -> float:
        """What tells plans of equal latency apart: what they lose, where this method looks at it."""
        return 0.0 if self._judge is None else self._judge(self.scores, sizes)

    def _chooser(self) -> Chooser:
        """Sizes for a goal in seconds. Of a preset that counts operations: the front over these is drawn once."""
        if self._judge is not None:
            rule = JudgedRule(self.scores, self._judge)
            return lambda goal: dict(rule(self.problem(self.worth), goal).sizes)
        task = self._task()
        if self.preset.cost != "operations" or task.operations is None:
            return lambda goal: choose(self.preset, task, goal)
        self._points = self._points or front(task.operations).points
        points = self._points
        seconds = [evaluate(task.problem, p.sizes).seconds for p in points]

        def choose_point(goal: float) -> dict[str, int]:
            within = [p for p, s in zip(points, seconds, strict=True) if s <= goal]
            return dict(max(within or points[:1], key=lambda p: p.value).sizes)

        return choose_point

    def plan(self, sizes: Mapping[str, int]) -> Plan:
        """The plan that keeps the best indices."""
        program = self.seen.program
        kept = {n: best_indices(self.scores[n], s) for n, s in sizes.items() if s < program.axis(n).size}
        return make_plan(program, kept)

    def _task(self) -> Task:
        bench = self.seen.bench
        loss = lambda sizes: self.seen.loss(self.plan(sizes))  # noqa: E731
        return preset_task(bench.program, self.worth, bench.candidates, bench.tables(), bench.operations, loss)

    def problem(self, worth: Mapping[str, Floats]) -> Problem:
        """The joint problem of worths and the bench's costs."""
        bench = self.seen.bench
        return width_problem(bench.program, worth, bench.candidates, bench.tables())

    def probe(self, share: float) -> None:
        """Two rounds, as the compiler does: around a uniform cut, then around the plan found by them."""
        bench, goal = self.seen.bench, self.seen.bench.goal(share)
        base = choose(PRESETS["uniform"], self._task(), goal)
        loader = self.seen.trained.train.loader(PROBED_BATCH)
        for turn in range(2):
            full = {name: sizes[-1] for name, sizes in bench.candidates.items()} | base
            self.worth = probed_worth(self.seen.program, self.scores, bench.candidates, full, loader, everywhere, PROBED)
            if turn == 0:
                base = dict(solve(self.problem(self.worth), goal).sizes)


def preset_of(contender: str) -> Preset:
    """The preset of a contender: `criterion/NAME` is that criterion's plain sums under our exact allocation."""
    if contender.startswith("criterion/"):
        return Preset(contender.removeprefix("criterion/"), blocks=True)
    return PRESETS[contender]
