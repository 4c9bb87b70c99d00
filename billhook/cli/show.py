"""Tables for the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_result(result: Any, out: Path) -> None:
    """The outcome of a compile: budget, prediction and measurement, and what was written where."""
    latency = result.latency
    verdict = "[green]met[/]" if result.met else "[red]missed[/]"
    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("budget", f"{_seconds(latency.budget) * 1e3:.3f} ms", verdict)
    table.add_row("predicted", str(latency.predicted), "")
    table.add_row("measured", str(latency.measured), "")
    console.print(table)
    if result.too_noisy:
        console.print("[yellow]too noisy[/]: the final measurement varies more than the gate allows; repeat it on a quieter machine")
    if result.noisy_kernels:
        console.print(f"[yellow]too noisy[/]: {result.noisy_kernels} of {result.reuse.wanted} kernels; see billhook db list")
    for name in ("memory", "weights", "attained"):
        if getattr(result, name, None) is not None:
            console.print(str(getattr(result, name)))
    console.print(f"wrote {out}/ and {out / 'report.html'}")


def _seconds(value: Any) -> float:
    return float(getattr(value, "seconds", value))
