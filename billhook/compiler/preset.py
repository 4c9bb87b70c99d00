"""Methods of the literature in place of our allocation: the sizes that a preset takes, with our proof of what that leaves."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from billhook.costmodel.network_cost import CostTables
from billhook.costmodel.static_cost import static_tables
from billhook.costmodel.work import kernel_flops
from billhook.ir.errors import DataError
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.allocate import Problem, Solution, judge
from billhook.passes.allocation_presets import Preset, Task, find_preset, within
from billhook.passes.allocation_task import made_axes, network_kernels
from billhook.passes.batches import Loader, Loss, split
from billhook.passes.probe import plan_loss
from billhook.passes.saliency import Scores
from billhook.passes.saliency_criteria import WEIGHT_CRITERIA, check_criterion, chosen_criterion
from billhook.passes.width_problem import plan_of, width_problem

from .fit import Rule, Values


def chosen_preset(name: str | None, criterion: str | None, *, data: bool) -> tuple[Preset | None, str]:
    """The preset with this name (None: our default), and the criterion: the one that is named, else the preset's, else the default.

    Raises OptionError for unknown names, DataError where a preset's criterion needs data and there are none.
    """
    if name is None:
        return None, chosen_criterion(criterion, data=data)
    preset = find_preset(name)
    chosen = check_criterion(criterion or preset.criterion)
    if not data and chosen not in WEIGHT_CRITERIA:
        raise DataError(f"preset {name} scores by {chosen}, which needs data; pass data, or a criterion of weights such as l2")
    return preset, chosen


def preset_rule(
    preset: Preset,
    program: Program,
    values: Values,
    candidates: Mapping[str, Sequence[int]],
    tables: CostTables,
    uniform: Sequence[tuple[str, ...]],
    target: Target,
    loss: Callable[[Mapping[str, int]], float] | None,
) -> Rule:
    """How a preset chooses sizes for a goal in seconds: as its paper does, aimed so that the joint latency is at the goal.

    tables: of the kernels, for which widths each makes. loss: of sizes, measured, where the preset asks for it.
    """
    made = made_axes(program, tables)
    operations: Problem | None = None
    if preset.cost == "operations":
        kernels = network_kernels(program, candidates, target)
        (counted,) = static_tables(kernels, candidates, lambda workload: float(kernel_flops(workload)))
        operations = width_problem(program, values.worth, candidates, counted, uniform=uniform)

    def rule(problem: Problem, goal: float, /) -> Solution:
        return judge(problem, within(preset, Task(problem, made, operations, loss), goal), goal)

    return rule


def measured_loss(program: Program, scores: Scores, loader: Loader, loss: Loss, batches: int) -> Callable[[Mapping[str, int]], float]:
    """The loss of sizes on the first batches of the data, by batch statistics; the best indices by the scores are kept."""
    data = [split(batch) for batch in islice(loader, batches)]
    return lambda sizes: plan_loss(program, plan_of(program, scores, sizes), data, loss)
