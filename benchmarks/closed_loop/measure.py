"""One network and one budget: the whole compilation without data, and what its loop did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.networks import Named
from benchmarks.rows import Row
from billhook.compiler.engine import Engine
from billhook.compiler.pipeline import Compiler, make_job
from billhook.compiler.result import Result
from billhook.ir.errors import BudgetError
from billhook.ir.latency import Latency
from billhook.ir.progress import Progress

CRITERION = "l2"  # needs no data; which indices go is of no interest here


@dataclass(frozen=True, slots=True)
class Task:
    """A network and the share of its dense latency that it may take."""

    network: Named
    threads: int
    share: float

    @property
    def keys(self) -> Row:
        """What a row of this task says about it."""
        return {"network": str(self.network), "threads": self.threads, "budget": self.share}


def measure(task: Task, database: Path, progress: Progress) -> Row:
    """The row of a compilation; a budget that nothing meets is a row too, with the reason."""
    model, image = task.network.load()
    job = make_job(
        model,
        image,
        "llvm",
        task.share,
        data=None,
        evaluate=None,
        finetune=None,
        loss=None,
        criterion=CRITERION,
        score_batches=1,
        probe_batches=1,
        peers=(),  # the budget is a share of our own dense latency: the loop is judged, not the kernels
        database=database,
        threads=task.threads,
    )
    with Engine(job.target, database, progress) as engine:
        try:
            result = Compiler(job, engine, progress).run()
        except BudgetError as missed:
            return {**task.keys, "missed": str(missed)}
    return {**task.keys, **_row(result)}


def _row(result: Result) -> Row:
    """Seconds. `loop`: the loop's measurement that was accepted; `measured`: the final one, dense and pruned anew in the same rounds."""
    budget, fitted = result.latency.budget, result.fitted
    dense = result.comparison.ours_dense.seconds
    return {
        "dense": dense,
        "budget_seconds": budget,
        "measured": _packed(result.latency.measured),
        "predicted": _packed(result.latency.predicted),
        "deviation": result.latency.measured.seconds / budget - 1,
        "loop": fitted.measured.seconds,
        "rounds": [{"goal": r.goal, "predicted": _packed(r.predicted), "measured": _packed(r.measured)} for r in fitted.rounds],
        "too_noisy": result.too_noisy,
        "error": result.build.error,
        "gap": fitted.solution.gap,
        "seconds": result.stages.total,
        "stages": dict(result.stages.seconds),
    }


def _packed(latency: Latency) -> dict[str, Any]:
    return {"seconds": latency.seconds, "low": latency.low, "high": latency.high}
