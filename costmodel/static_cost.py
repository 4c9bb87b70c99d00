"""Costs without measuring: a table for every kernel from its workload alone, in whatever unit the given function counts.

For counting operations, for a first look before anything is measured, and for judging solvers. Never milliseconds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from billhook.ir.workload import Workload

from .family import Widths
from .network_cost import CostTable, CostTables, Floats, Kernel, composite_first, coordinate_widths
from .work import kernel_bytes, kernel_flops

_DRAWN = 12  # points at which a table is checked to be linear in each of its widths


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

    def at(point: Widths) -> list[float]:
        workload = kernel.family.workload(point)
        return [0.0] * len(costs) if workload is None else [cost(workload) for cost in costs]

    positive = [np.flatnonzero(np.array(ws) > 0) for ws in widths]
    inside = _multilinear([tuple(ws[i] for i in rows) for ws, rows in zip(widths, positive, strict=True)], at, len(costs))
    if inside is None:
        return list(np.array([at(p) for p in product(*widths)]).T.reshape(len(costs), *(len(w) for w in widths)))
    grids = np.zeros((len(costs), *(len(w) for w in widths)))
    grids[(slice(None), *np.ix_(*positive))] = inside
    for place, point in zip(np.ndindex(*grids.shape[1:]), product(*widths), strict=True):
        if 0 in point:
            grids[(slice(None), *place)] = at(point)
    return list(grids)


def _multilinear(widths: Sequence[Widths], at: Callable[[Widths], Sequence[float]], costs: int) -> Floats | None:
    """The values [costs, widths...] from those at the corners, where they are linear in each width alone; None where they are not.

    Operations and bytes mostly are, and a table of two wide axes has 50,000 entries. Judged by a fixed draw of points.
    """
    shape = tuple(len(ws) for ws in widths)
    if math.prod(shape) <= 4 * _DRAWN:
        return None
    ends = [sorted({0, n - 1}) for n in shape]
    corners = np.array([at(tuple(ws[i] for ws, i in zip(widths, place, strict=True))) for place in product(*ends)])
    grid = corners.T.reshape(costs, *(len(e) for e in ends))
    for axis, ws in enumerate(widths):
        share = (np.array(ws) - ws[0]) / max(ws[-1] - ws[0], 1)
        first, last = np.take(grid, [0], axis + 1), np.take(grid, [-1], axis + 1)
        grid = first + (last - first) * share.reshape([-1 if i == axis + 1 else 1 for i in range(grid.ndim)])
    drawn = np.random.default_rng(0).integers(0, shape, (_DRAWN, len(shape)))
    expected = np.array([at(tuple(ws[i] for ws, i in zip(widths, place, strict=True))) for place in drawn.tolist()]).T
    return grid if np.allclose(grid[(slice(None), *drawn.T)], expected, rtol=1e-9, atol=0.0) else None
