"""The table of axes for the terminal, and what it adds up to."""

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billhook.ir.axis import Axis
from billhook.ir.program import Program
from billhook.ir.text import coverage


def show_axes(program: Program) -> None:
    """One row per axis, prunable before frozen, widest first; then how much can be cut, and which operators freeze the rest."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("axis", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("members", justify="right")
    table.add_column("", overflow="fold")
    for axis in sorted(program.axes, key=lambda a: (not a.prunable, -a.size, a.name)):
        table.add_row(escape(axis.name), str(axis.size), str(len(axis.members)), _state(axis))
    console = Console()
    console.print(table)
    frozen = Counter(f"{axis.frozen_because[0].why} ({axis.frozen_because[0].op})" for axis in program.axes if not axis.prunable)
    for why, count in frozen.most_common():
        console.print(f"{count} frozen: {escape(why)}", highlight=False)
    console.print(coverage(program))


def _state(axis: Axis) -> str:
    if axis.frozen_because:
        return f"[yellow]frozen[/]: {escape(str(axis.frozen_because[0]))}"
    notes = [*(["mixing"] if axis.mixing else []), *([] if axis.additive else ["keep one" if axis.least == 1 else f"keep {axis.least}"])]
    return "[green]prunable[/]" + (f" ({', '.join(notes)})" if notes else "")
