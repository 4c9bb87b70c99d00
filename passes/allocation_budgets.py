"""Several budgets at once: further limits of a problem, from cost tables in whatever unit, through the same exact solver.

problem = with_budgets(problem, candidates, [
weight_budget(static_tables(kernels, candidates, weight_bytes)[0], 4e6),
working_set_budget(static_tables(kernels, candidates, kernel_bytes)[0], 1e6),
latency_budget("at 384 pixels", other_cost.tables(candidates), 0.020)])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from billhook.costmodel.network_cost import CostTables
from billhook.ir.errors import OptionError

from .allocation_problem import Problem, Resource
from .width_problem import table_factor


@dataclass(frozen=True, slots=True)
class ExtraBudget:
    """A limit on the sum ("sum") or on the largest ("peak") of what the tables say, in their unit."""

    name: str
    tables: CostTables
    limit: float
    combine: Literal["sum", "peak"] = "sum"

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise OptionError(f"budget {self.name}: the limit must be greater than 0, not {self.limit:g}")


def weight_budget(tables: CostTables, limit: float) -> ExtraBudget:
    """Bytes of all parameters, from tables of `work.weight_bytes`. A parameter that several kernels share counts for each."""
    return ExtraBudget("weight bytes", tables, limit)


def working_set_budget(tables: CostTables, limit: float) -> ExtraBudget:
    """Largest working set of one kernel (inputs, parameters, output), from tables of `work.kernel_bytes`.

    A lower bound of the peak: values that live on beside the kernel, such as a residual, are not in it.
    """
    return ExtraBudget("working set bytes", tables, limit, "peak")


def latency_budget(name: str, tables: CostTables, limit: float) -> ExtraBudget:
    """Seconds at another input shape, from the tables of a `NetworkCost` of the same axes at that shape."""
    return ExtraBudget(f"seconds {name}", tables, limit)


def with_budgets(problem: Problem, candidates: Mapping[str, Sequence[int]], budgets: Sequence[ExtraBudget]) -> Problem:
    """The problem under these limits as well. The tables are over the same program and candidates as the problem's own.

    Kernels that no axis changes count in sums, and are beyond the reach of a peak. Raises OptionError where two budgets have one name.
    """
    added = tuple(
        Resource(
            b.name,
            b.limit,
            tuple(table_factor(t, candidates, problem.variables) for t in b.tables.tables),
            b.tables.constant if b.combine == "sum" else 0.0,
            b.combine,
        )
        for b in budgets
    )
    return replace(problem, resources=(*problem.resources, *added))
