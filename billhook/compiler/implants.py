"""Which layers of a job are factored: by the measured prices of both forms, and of what the loss says of every rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billhook.costmodel.network_cost import NetworkCost
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.passes.allocate import solve
from billhook.passes.candidate_sizes import candidate_sizes, with_dense
from billhook.passes.constraints import Constraint, uniform_groups
from billhook.passes.cut import cut_graph
from billhook.passes.low_rank import implant, implantable, rank_sizes
from billhook.passes.low_rank_choice import chosen_layers, with_both_forms
from billhook.passes.probe import probed_worth
from billhook.passes.reader_features import ROWS, second_moments
from billhook.passes.readers import Reader
from billhook.passes.saliency import Data
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem

from .engine import Engine
from .fit import uniform_at


@dataclass(frozen=True, slots=True)
class Implanted:
    """Layers that were chosen, and the program with them factored by what they see."""

    layers: tuple[Reader, ...]
    program: Program


def choose_implants(
    engine: Engine,
    program: Program,
    candidates: Mapping[str, Sequence[int]],
    cost: NetworkCost,
    constraints: Sequence[Constraint],
    criterion: str,
    data: tuple[Data, Data],
    goal: float,
) -> Implanted:
    """The layers that a plan for `goal` seconds has rather in two than in one, when all ranks and widths are chosen at once.

    data: batches to score and to factor by, and the few to probe the loss on. The second form's kernels are measured here.
    """
    layers = implantable(program)
    moments = {node: moment.mean for node, moment in second_moments(program, layers, data[0], ROWS).items()}
    both = implant(program, layers, moments)
    sizes, pairs = priced(engine, both, constraints)
    scores = score_axes(criterion, both, cut_graph(both, Plan({})), data[0])
    around = {name: size for name, size in uniform_at(cost, candidates, goal).items() if name in sizes}
    few = data[1]
    worth = probed_worth(both, scores, sizes, around, few.loader, few.loss, few.batches or 1, engine.progress)
    plain = width_problem(both, worth, sizes, pairs.tables(sizes), uniform=uniform_groups(both, constraints))
    problem, offered = with_both_forms(plain, program, layers, sizes, cost.tables(candidates))
    chosen = chosen_layers(solve(problem, goal).sizes, offered, program)
    return Implanted(chosen, implant(program, chosen, moments) if chosen else program)


def priced(engine: Engine, program: Program, constraints: Sequence[Constraint]) -> tuple[dict[str, tuple[int, ...]], NetworkCost]:
    """The candidate sizes of a program with factored layers, and its cost model, whose anchors are measured here."""
    sizes = rank_sizes(program, candidate_sizes(program, engine.target, constraints=constraints))
    cost = engine.network_cost(program, with_dense(program, sizes))
    cost.prepare(engine.progress)
    return sizes, cost
