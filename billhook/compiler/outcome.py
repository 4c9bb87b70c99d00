"""What a compilation has found: the values that its record and its bundle are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from billhook.costmodel.measured import Reuse
from billhook.ir.block_sparse import BlockPattern
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.options import Budget
from billhook.passes.allocate import Front
from billhook.passes.prune import Pruned

from .budget import BudgetedLatency
from .compare import OURS, Comparison, KernelTime
from .engine import Build
from .fit import Fitted
from .memory import ActivationBytes
from .objective import Attained
from .precision import PRECISIONS, Precision
from .roofline import Peaks
from .stages import Stages
from .weights import WeightBytes


@dataclass(frozen=True)
class Sparse:
    """chosen: patterns of the layers that are sparse, by weight. layers: how many could be; 0 where none was to be."""

    chosen: Mapping[str, BlockPattern] = field(default_factory=dict[str, BlockPattern])
    layers: int = 0


@dataclass(frozen=True)
class Outcome:
    """A compiled network.

    model: trainable, fine-tuned. oracle_error: of the cut against the masked network, on the example. quality: what the
    user's evaluate function said of "dense" and "pruned". reuse: how many of the kernels that it needed the database had.
    processor: what measured the kernels and our builds; peaks: the most that it can do, None for a remote device.
    noisy_kernels: how many of the kernels have no trustworthy latency. memory, weights: None where it was not limited.
    attained: what was minimised, where that was the objective; its proof then stands in place of the solution's.
    """

    budget: Budget
    latency: BudgetedLatency
    target: Target
    program: Program
    pruned: Pruned
    fitted: Fitted
    build: Build
    comparison: Comparison
    kernels: tuple[KernelTime, ...]
    quality: dict[str, float]
    oracle_error: float
    stages: Stages
    reuse: Reuse
    processor: str
    peaks: Peaks | None
    noisy_kernels: int
    precision: Precision = PRECISIONS["fp32"]
    memory: ActivationBytes | None = None
    weights: WeightBytes | None = None
    attained: Attained | None = None
    sparse: Sparse = field(default_factory=Sparse)

    @property
    def model(self) -> nn.Module:
        return self.pruned.model

    @property
    def plan(self) -> Plan:
        return self.pruned.plan

    @property
    def front(self) -> Front:
        return self.fitted.front

    @property
    def too_noisy(self) -> bool:
        """Whether the final measurement of our pruned build varies so much that it should be repeated on a quieter machine."""
        return self.comparison.pruned[OURS].verdict != "ok"

    @property
    def met(self) -> bool:
        """Whether the re-measured latency is within the budget."""
        return self.latency.met
