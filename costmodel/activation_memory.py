"""Peak memory of a network's activations as a function of its axis sizes.

A value lives from the kernel that makes it to the last that reads it. While a kernel runs, the values alive take the sum of their bytes,
each of which is a function of the few axes in its shape; the peak is the largest of these sums. Where a kernel vanishes with a removed
branch, its output still counts: what is passed through in its place has the same shape and lives as long. So the sums never say too
little; what a target's planner makes of them (blocks that are shared but not filled) comes on top, and is asked for the final network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billhook.ir.dims import BATCH
from billhook.ir.memory import lives, plan_memory, tensor_bytes, value_uses
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .network_cost import CostTables, Kernel
from .static_cost import static_tables
from .width_family import values_of
from .widths import WidthModel


@dataclass(frozen=True, slots=True, eq=False)
class ActivationMemory:
    """Values that kernels make (inputs are the caller's), and when they live.

    values: each as a kernel whose workload is its output alone. uses: the values that each kernel touches. kept: the outputs.
    tables: bytes of each value over the candidates. moments: the largest sets of values that live together, each under the name of the
    value that is made then; the others are parts of these.
    """

    values: tuple[Kernel, ...]
    uses: tuple[tuple[str, ...], ...]
    kept: tuple[str, ...]
    tables: Mapping[str, CostTables]
    moments: Mapping[str, frozenset[str]]

    def bytes_at(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Bytes of every value at these sizes, which name all axes. Raises KeyError for one that is missing."""
        found = {v.name: v.family.workload(tuple(c.at(sizes) for c in v.family.coordinates)) for v in self.values}
        return {name: 0 if w is None else tensor_bytes(w.output) for name, w in found.items()}

    def peak(self, sizes: Mapping[str, int]) -> int:
        """The most bytes that live together."""
        return max(self.peaks(sizes).values())

    def peaks(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Bytes that live together at each moment."""
        found = self.bytes_at(sizes)
        return {name: sum(found[n] for n in together) for name, together in self.moments.items()}

    def arena(self, sizes: Mapping[str, int]) -> int:
        """Bytes of the arena in which `plan_memory` lays the values out: the peak, alignment, and what cannot be filled."""
        return plan_memory(self.uses, self.bytes_at(sizes), self.kept)[1]


def activation_memory(model: WidthModel, target: Target, candidates: Mapping[str, Sequence[int]], batch: int) -> ActivationMemory:
    """The memory model of a partitioned network. candidates: ascending sizes of each axis. batch: what the network is run with."""
    network = model.partition.network
    values = values_of(model, target, {BATCH: batch})
    made = {v.name for v in values}
    uses = tuple(tuple(n for n in names if n in made) for names in value_uses(network))
    tables = {v.name: static_tables([v], candidates, _output_bytes)[0] for v in values}
    return ActivationMemory(values, uses, network.outputs, tables, _moments(uses, made, network.outputs))


def _output_bytes(workload: Workload) -> float:
    return float(tensor_bytes(workload.output))


def _moments(uses: Sequence[Sequence[str]], made: set[str], kept: Sequence[str]) -> dict[str, frozenset[str]]:
    """The values alive while each kernel runs, named by its output, without the sets that lie within another."""
    first, last = lives(uses, made, kept)
    alive = {names[-1]: frozenset(n for n in made if first[n] <= step <= last[n]) for step, names in enumerate(uses)}
    return {name: found for name, found in alive.items() if not any(found < other for other in alive.values())}
