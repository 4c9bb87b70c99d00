"""`billhook front`: accuracy proxy against latency, before any training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from billhook import options, progress

from .jobs import build_model, example_tensors

if TYPE_CHECKING:
    from billhook.compiler.early import EarlyFront
    from billhook.passes.constraints import Constraint

STATIC = "static cost: operations and bytes, nothing was measured; shares order plans and are no times"


@dataclass(frozen=True, slots=True)
class FrontJob:
    """All that `billhook front` was told. database: None measures nothing."""

    model: options.Reference
    inputs: tuple[options.InputSpec, ...]
    data: options.Reference | None
    criterion: str | None
    preset: str | None
    retain: float | None
    points: int
    threads: int
    constraints: "tuple[Constraint, ...]"
    database: Path | None
    drawing: Path | None


def run_front(job: FrontJob) -> None:
    """Print the front, and draw it where asked to."""
    module = build_model(job.model)
    data = options.call(job.data, "--data") if job.data else None
    from billhook.compiler.early import early_front

    with progress.shown() as listener:
        found = early_front(
            module,
            example_tensors(job.inputs),
            criterion=job.criterion,
            preset=job.preset,
            retain=job.retain,
            goals=job.points,
            data=data,
            database=job.database,
            threads=job.threads,
            constraints=job.constraints,
            progress=listener,
        )
    _print(found, job.points)
    if job.drawing is not None:
        _draw(found, job.drawing)


def _print(found: "EarlyFront", count: int) -> None:
    measured = found.unit == "predicted"
    typer.echo(f"{'latency':>12}  {'of dense':>8}  {'retained':>8}" if measured else f"{'of dense':>8}  {'retained':>8}")
    for point in found.thinned(count):
        row = f"{point.cost / found.dense:8.1%}  {point.retained:8.2%}"
        typer.echo(f"{point.cost * 1e3:9.4f} ms  {row}" if measured else row)
    if found.least is not None:
        amount, kept = found.least.amount, found.least.share
        cost = f"{amount * 1e3:.4f} ms, {amount / found.dense:.1%}" if measured else f"{amount / found.dense:.1%}"
        typer.echo(f"least that retains {kept:.2%}: {cost} of dense, within {found.least.gap:.3%} of the least possible")
    typer.echo(f"{len(found.points)} plans by {found.criterion}, each within {found.gap:.3%} of the best at its cost")
    typer.echo("latency predicted from measured kernels of this machine, not yet of built networks" if measured else STATIC)


def _draw(found: "EarlyFront", path: Path) -> None:
    from billhook.drawing.front import draw_front

    across = "latency, predicted, as a share of dense" if found.unit == "predicted" else "static cost (no time), as a share of dense"
    points = [(p.cost, p.retained) for p in found.thinned(200)]
    draw_front(points, found.dense, path, title="What is retained at which latency", across=across, up=f"{found.criterion} retained")
    typer.echo(path)
