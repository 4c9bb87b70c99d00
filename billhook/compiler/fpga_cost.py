"""Cycles of a network on an accelerator as a function of its axis sizes: the pruner's tables, exact at every width."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.kernels import KernelCost, kernel_costs
from billhook.codegen.fpga.pricing import Pricer
from billhook.costmodel.network_cost import CostTable, CostTables, Kernel, composite_first, coordinate_widths
from billhook.costmodel.partition import Partition, partition
from billhook.costmodel.width_family import kernels_of
from billhook.costmodel.widths import WidthModel
from billhook.ir.dims import BATCH
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference


def fpga_target(board: str, accelerator: Accelerator | None) -> Target:
    """The target of a board: widths count in multiples of the array's columns."""
    rows, columns = (accelerator.rows, accelerator.columns) if accelerator is not None else (8, 8)
    return Target("fpga", board, rows, columns, 0, 1)


def dense_partition(program: Program, target: Target) -> Partition:
    """The kernels of the whole network for one sample."""
    return partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), target)


def cycle_tables(program: Program, parts: Partition, candidates: Mapping[str, Sequence[int]], pricer: Pricer) -> CostTables:
    """Tables for the allocation in cycles in place of seconds: what the host computes counts nothing.

    Raises CaptureError, OptionError where the network cannot run on the accelerator.
    """
    removable = [name for name, sizes in candidates.items() if 0 in sizes]
    kernels = kernels_of(WidthModel(program, parts), parts.target, {BATCH: 1}, removable)
    tables: list[CostTable] = []
    constant = 0.0
    for kernel, cost in zip(kernels, kernel_costs(parts.network, pricer), strict=True):
        table = _table(kernel, cost, candidates)
        if table.seconds.size == 1:
            constant += table.seconds.item()
        else:
            tables.append(table)
    return CostTables(tuple(tables), constant)


def _table(kernel: Kernel, cost: KernelCost, candidates: Mapping[str, Sequence[int]]) -> CostTable:
    widths = coordinate_widths(kernel, candidates)
    cycles = np.zeros([len(w) for w in widths])
    for place in product(*(range(len(w)) for w in widths)):
        workload = kernel.family.workload(tuple(w[i] for w, i in zip(widths, place, strict=True)))
        cycles[place] = cost.cycles(workload) if workload is not None else 0
    return composite_first(kernel, widths, cycles)
