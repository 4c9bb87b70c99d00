"""Sharing of samples between models: how many of a second model's kernels the first one's measurements already cover."""

from dataclasses import dataclass
from pathlib import Path

from billhook.compiler.engine import TRIALS, Engine
from billhook.costmodel.measured import Reuse
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.ir.target import Target
from billhook.passes.candidate_sizes import candidate_sizes, with_dense
from billhook.passes.cut import cut_graph


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the first model found in an empty database, and what the second found after it."""

    first: Reuse
    second: Reuse

    @property
    def hit_rate_second_model(self) -> float:
        """Share in [0, 1] of the kernels that the second model did not have to measure."""
        return self.second.hit_rate


def sharing(first: Program, second: Program, target: Target, database: Path, progress: Progress, trials: int = TRIALS) -> Sharing:
    """Price and build two traced models, one after the other, over one database, which should be new."""
    return Sharing(*(_needed(program, target, database, progress, trials) for program in (first, second)))


def _needed(program: Program, target: Target, database: Path, progress: Progress, trials: int) -> Reuse:
    """What `bh.compile` needs to know of a model before it chooses widths: the anchors of its surfaces and the dense kernels."""
    candidates = candidate_sizes(program, target)
    with Engine(target, database, progress, trials) as engine:
        engine.network_cost(program, with_dense(program, candidates)).prepare(progress)
        engine.build(cut_graph(program, Plan({})), program.example)
        return engine.costs.reuse
