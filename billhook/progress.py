"""Progress of long work: a callable that every layer may take, and the two ways in which a terminal or a log shows it."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class OnProgress(Protocol):
    """Called with a stage's name and how much of it is done; `total` 0 means that nobody knows yet.

    Every layer takes it as `ir.progress.Progress`.
    """

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def silent(_stage: str, _done: int, _total: int, /) -> None:
    """The listener that shows nothing."""


class Bars:
    """A bar with an ETA for every stage, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total or None)
        self._progress.update(self._tasks[stage], completed=done, total=total or None)


class Lines:
    """A line at the end of every stage, in a log: nothing to overwrite, nothing repeated."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        begun = self._begun.setdefault(stage, time.monotonic())
        if total and done >= total:
            del self._begun[stage]
            self._stream.write(f"{stage}: {done}/{total} in {time.monotonic() - begun:.1f} s\n")
            self._stream.flush()


@contextmanager
def shown(stream: TextIO | None = None) -> Generator[OnProgress]:
    """A listener for the stream (standard error by default): bars where it is a terminal, lines where it is not."""
    out: TextIO = stream or sys.stderr
    if not out.isatty():
        yield Lines(out)
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(file=out), expand=True) as progress:
        yield Bars(progress)
