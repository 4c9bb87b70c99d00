"""From a program, its worths and its cost tables to what a preset works on."""

from collections.abc import Callable, Mapping, Sequence

from billhook.costmodel.network_cost import CostTables, Kernel
from billhook.costmodel.partition import partition
from billhook.costmodel.width_family import kernels_of
from billhook.costmodel.widths import WidthModel
from billhook.ir.dims import BATCH, leaves
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.ir.tensors import tensors_in

from .allocation_presets import Sizes, Task
from .cut import cut_graph
from .normalise import normalise_for_inference
from .saliency import Floats
from .width_problem import width_problem


def network_kernels(program: Program, candidates: Mapping[str, Sequence[int]], target: Target) -> tuple[Kernel, ...]:
    """The kernels of a network as functions of its axes, without a code generator: nothing is built or measured."""
    model = WidthModel(program, partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), target))
    removable = [name for name, sizes in candidates.items() if 0 in sizes]
    batch = next((int(t.shape[0]) for t in tensors_in(program.example) if t.dim() > 0), 1)
    return kernels_of(model, target, {BATCH: batch}, removable)


def made_axes(program: Program, tables: CostTables) -> dict[str, frozenset[str]]:
    """For every kernel with a table, the axes of what it makes; a kernel that is no node of the program (a layout change) is absent."""
    found: dict[str, frozenset[str]] = {}
    for table in tables.tables:
        if table.name in program.types:
            found[table.name] = frozenset(leaf.name for dim in program.types[table.name] for leaf in leaves(dim) if leaf.name)
    return found


def preset_task(
    program: Program,
    worth: Mapping[str, Floats],
    candidates: Mapping[str, Sequence[int]],
    tables: CostTables,
    operations: CostTables | None = None,
    loss: Callable[[Sizes], float] | None = None,
    uniform: Sequence[tuple[str, ...]] = (),
) -> Task:
    """The task of choosing sizes from `candidates`; see `Task` and `width_problem`."""
    problem = width_problem(program, worth, candidates, tables, uniform=uniform)
    counted = width_problem(program, worth, candidates, operations, uniform=uniform) if operations is not None else None
    return Task(problem, made_axes(program, tables), counted, loss)
