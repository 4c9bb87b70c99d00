"""Tables for the terminal."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_axes(program: Any) -> None:
    """One row per axis, widest first within prunable and frozen, and a line that sums up the coverage."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("axis", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("members", justify="right")
    table.add_column("", overflow="fold")
    axes = sorted(program.axes, key=lambda a: (bool(a.frozen_because), -a.size, a.name))
    for axis in axes:
        state = f"[yellow]frozen[/]: {axis.frozen_because[0]}" if axis.frozen_because else "[green]prunable[/]"
        table.add_row(axis.name, str(axis.size), str(len(axis.members)), state)
    console = Console()
    console.print(table)
    console.print(coverage(program))


def coverage(program: Any) -> str:
    """How much of the model's parameters lies on axes that can be cut, in one line.

    A parameter tensor counts as prunable if at least one prunable axis has it as a member.
    """
    prunable = {member.tensor for axis in program.axes if not axis.frozen_because for member in axis.members}
    sizes = {name: math.prod(parameter.shape) for name, parameter in program.graph.named_parameters()}
    total = sum(sizes.values())
    share = sum(size for name, size in sizes.items() if name in prunable) / total if total else 0.0
    frozen = sum(1 for axis in program.axes if axis.frozen_because)
    return f"{len(program.axes) - frozen} of {len(program.axes)} axes can be cut; they reach {share:.1%} of {total:,} parameters"


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
    console.print(f"wrote {out}/ and {out / 'report.html'}")


def _seconds(value: Any) -> float:
    return float(getattr(value, "seconds", value))
