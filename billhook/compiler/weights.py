"""A limit on the bytes of weights: a sum over kernels, kept by the allocation beside the latency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billhook.costmodel.static_cost import static_tables
from billhook.costmodel.work import weight_bytes
from billhook.ir.network import Network
from billhook.ir.program import Program
from billhook.options import MemoryBudget
from billhook.passes.allocation_budgets import ExtraBudget, weight_budget

from .engine import Engine


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """What was allowed, what the build's kernels read of weights, and what the dense network's do; lanes that pad included."""

    limit: float
    taken: int
    dense: int

    def __str__(self) -> str:
        return f"{self.taken / 1e6:.3f} MB of weights, at most {self.limit / 1e6:.3f} MB; dense {self.dense / 1e6:.3f} MB"


class WeightLimit:
    """At most so many bytes of weights, as a budget of the allocation and as a report."""

    def __init__(
        self, engine: Engine, program: Program, candidates: Mapping[str, Sequence[int]], dense: Network, budget: MemoryBudget
    ) -> None:
        self._dense = network_weight_bytes(dense)
        self._limit = budget.bytes(self._dense)
        (tables,) = static_tables(engine.kernels(program, candidates), candidates, weight_bytes)
        self.budget: ExtraBudget = weight_budget(tables, self._limit)

    def report(self, network: Network) -> WeightBytes:
        """The three numbers for a network that was built."""
        return WeightBytes(self._limit, network_weight_bytes(network), self._dense)


def network_weight_bytes(network: Network) -> int:
    """Bytes of weights that the kernels of a network read; a weight that several share counts for each, as in the allocation."""
    return sum(weight_bytes(k.workload) for k in network.kernels)
