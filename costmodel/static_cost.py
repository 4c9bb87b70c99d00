"""Costs without measuring: a table for every kernel from its workload alone, in whatever unit the given function counts.

For counting operations, for a first look before anything is measured, and for judging solvers. Never milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from billhook.ir.workload import Workload

from .family import Widths
from .network_cost import CostTable, CostTables, Floats, Kernel, composite_first, coordinate_widths
from .work import kernel_bytes, kernel_flops


@dataclass(frozen=True, slots=True)
class Roofline:
    """start + operations / rate + bytes / bandwidth, in static units: what kernels cost relative to each other, roughly.

    The defaults are those of one core with wide vectors: 100 operations and 10 bytes in the time of one unit, 20 units to start.
    """

    rate: float = 100.0
    bandwidth: float = 10.0
    start: float = 20.0

    def __call__(self, workload: Workload, /) -> float:
        return self.start + kernel_flops(workload) / self.rate + kernel_bytes(workload) / self.bandwidth


def static_tables(
    kernels: Sequence[Kernel], candidates: Mapping[str, Sequence[int]], *costs: Callable[[Workload], float]
) -> tuple[CostTables, ...]:
    """For each cost function the tables for an allocation over `candidates` (ascending), with `cost(workload)` for every kernel and width.

    Kernels that are equal at all corners of their widths share a table, as the surfaces of measured kernels do.
    """
    shared: dict[tuple[object, ...], list[Floats]] = {}
    tables: list[list[CostTable]] = [[] for _ in costs]
    constants = [0.0 for _ in costs]
    for kernel in kernels:
        widths = coordinate_widths(kernel, candidates)
        corners = product(*({next((w for w in ws if w > 0), 0): None, ws[-1]: None} for ws in widths))
        key = (widths, kernel.family.steps, tuple(kernel.family.workload(w) for w in corners))
        if key not in shared:
            shared[key] = _grids(kernel, widths, costs)
        for i, grid in enumerate(shared[key]):
            if grid.size == 1:
                constants[i] += grid.item()
            else:
                tables[i].append(composite_first(kernel, widths, grid))
    return tuple(CostTables(tuple(t), c) for t, c in zip(tables, constants, strict=True))


def _grids(kernel: Kernel, widths: Sequence[Widths], costs: Sequence[Callable[[Workload], float]]) -> list[Floats]:
    """For each cost function its values at all combinations of widths; a kernel that vanishes costs nothing."""
    rows: list[list[float]] = []
    for point in product(*widths):
        workload = kernel.family.workload(point)
        rows.append([0.0] * len(costs) if workload is None else [cost(workload) for cost in costs])
    return list(np.array(rows).T.reshape(len(costs), *(len(w) for w in widths)))
