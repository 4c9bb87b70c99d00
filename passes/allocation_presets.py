"""Methods of the literature as configurations over the shared parts: criterion, cost model, rule.

    choose(find_preset("halp"), task, goal)   the sizes that the method would take for a latency

What the papers train in between is left to a schedule: a preset decides sizes from scores, tables and probes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from billhook.ir.errors import BudgetError, OptionError
from billhook.ir.nearest import suggest

from .allocate import evaluate, front, solve
from .allocation_adapt import adapt
from .allocation_front import unreachable
from .allocation_problem import Problem, restrict
from .allocation_sides import Made, one_sided
from .allocation_steps import in_steps
from .allocation_threshold import threshold
from .allocation_uniform import uniform_share

Cost: TypeAlias = Literal["joint", "made", "read", "operations"]
Rule: TypeAlias = Literal["exact", "threshold", "adapt", "uniform"]
Sizes: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Preset:
    """A method.

    criterion: how indices are scored (`saliency_criteria`). cost: what the rule believes a width costs: the kernel over all its
    widths ("joint"), over what it makes or reads only, or its operations instead of its latency. rule: how sizes are chosen. blocks:
    may a branch go whole? steps: of the way to the budget. probes: are the axes weighed by measured losses? source: the paper.
    """

    criterion: str
    cost: Cost = "joint"
    rule: Rule = "exact"
    blocks: bool = False
    steps: int = 1
    probes: bool = False
    source: str = ""


PRESETS: MappingProxyType[str, Preset] = MappingProxyType(
    {
        "ours": Preset("taylor", blocks=True, probes=True, source="docs/decisions/0004, 0008"),
        "halp": Preset("taylor", cost="made", steps=10, source="Shen et al. 2022"),
        "smcp": Preset("smcp", cost="read", blocks=True, steps=10, source="Humble et al. 2022"),
        "mdp": Preset("taylor", blocks=True, source="Sun et al. 2025"),
        "nvit": Preset("fisher", rule="threshold", source="Yang et al. 2023"),
        "netadapt": Preset("l2", rule="adapt", steps=10, source="Yang et al. 2018"),
        "uniform": Preset("l2", rule="uniform", source="the control"),
        "flops": Preset("taylor", cost="operations", blocks=True, source="the control"),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is to be allocated.

    problem: values and seconds. made: for each factor the axes that its kernel makes. operations: the same problem with the
    kernels' operations in place of seconds, for presets that count them. loss: of sizes, measured; None where there is no data.
    """

    problem: Problem
    made: Made
    operations: Problem | None = None
    loss: Callable[[Sizes], float] | None = None


def find_preset(name: str) -> Preset:
    """The preset with this name. Raises OptionError with the nearest, and the known names."""
    if name not in PRESETS:
        raise OptionError(f"no preset is called {name!r}{suggest(name, PRESETS)} (known: {', '.join(PRESETS)})")
    return PRESETS[name]


def choose(preset: Preset, task: Task, goal: float, gap: float = 1e-3) -> dict[str, int]:
    """Sizes by a preset's rule for a latency of `goal` seconds, as the preset believes them to be.

    A one-sided cost model is wrong by what the other side changes: the plan may be faster or slower than the goal; `within` corrects
    that. Raises BudgetError where the preset finds no plan.
    """
    task = task if preset.blocks else _without_zero(task)
    problem = task.problem
    if preset.rule == "uniform":
        return uniform_share(problem, goal)
    if preset.rule == "threshold":
        return threshold(problem, goal)
    if preset.rule == "adapt":
        return adapt(problem, goal, preset.steps, task.loss)
    if preset.cost == "operations":
        return _by_operations(task, goal)
    if preset.cost == "joint":
        return dict(solve(problem, goal, gap).sizes)
    side = preset.cost

    def step(offered: Problem, sizes: Sizes, target: float) -> Sizes:
        return solve(one_sided(offered, sizes, side, task.made), target, gap).sizes

    return in_steps(problem, _seconds(problem, _largest(problem)), goal, preset.steps, step)


def within(preset: Preset, task: Task, goal: float, close: float = 0.01, rounds: int = 12) -> dict[str, int]:
    """Sizes whose joint latency is as near below `goal` seconds as the preset comes by aiming elsewhere.

    What a fair comparison at equal latency needs: a method whose cost model is wrong about a plan is not punished for the slack.
    Raises BudgetError where no attempt is within the goal.
    """
    best: tuple[float, dict[str, int]] | None = None
    reached = np.inf
    low, high, aim = 0.0, np.inf, goal  # aims known to be too low, too high
    for _ in range(rounds):
        try:
            sizes = choose(preset, task, aim)
        except BudgetError:  # by its own cost model
            low, aim = aim, 2 * aim if np.isinf(high) else (aim + high) / 2
            continue
        seconds = _seconds(task.problem, sizes)
        reached = min(reached, seconds)
        if seconds <= goal:
            low = aim
            if best is None or seconds > best[0]:
                best = seconds, sizes
            if seconds >= (1 - close) * goal:
                break
        else:
            high = aim
        proposal = aim * goal / seconds
        aim = proposal if low < proposal < high else (low + min(high, 2 * max(low, goal))) / 2
    if best is None:
        raise BudgetError(unreachable(goal, reached))
    return best[1]


def _by_operations(task: Task, goal: float) -> dict[str, int]:
    """The most valuable plan on the front over operations that is within the goal in seconds."""
    if task.operations is None:
        raise OptionError("this preset counts operations; give the task its problem in operations")
    points = front(task.operations).points
    fast = [p for p in points if _seconds(task.problem, p.sizes) <= goal]
    return dict(max(fast or points[:1], key=lambda p: p.value).sizes)


def _without_zero(task: Task) -> Task:
    """The task without removing branches whole."""

    def positive(problem: Problem) -> Problem:
        rows = {n: np.flatnonzero(np.array(v.sizes) > 0) for n, v in problem.variables.items()}
        return restrict(problem, {n: r if len(r) else np.zeros(1, dtype=np.intp) for n, r in rows.items()})

    return replace(task, problem=positive(task.problem), operations=positive(task.operations) if task.operations else None)


def _largest(problem: Problem) -> dict[str, int]:
    return {n: v.sizes[-1] for n, v in problem.variables.items()}


def _seconds(problem: Problem, sizes: Sizes) -> float:
    return evaluate(problem, sizes).seconds
