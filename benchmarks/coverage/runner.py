"""Each case in a child process of its own, with limits on time and memory; rows are appended as they come, so a run resumes."""

import json
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .case import Case


@dataclass(frozen=True, slots=True)
class Stage:
    """What is done with every case: a fresh row (a dataclass with set, model and error), the function that fills it, calling
    its last argument in between, and one line for the terminal.
    """

    row: Callable[[str, str], Any]
    fill: Callable[[Case, Any, Callable[[], None]], None]
    line: Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Limits:
    """seconds: CPU time of a case; memory: bytes of address space."""

    seconds: int
    memory: int


def run(cases: Iterable[Case], rows: Path, stage: Stage, limits: Limits, again: Callable[[dict[str, Any]], bool]) -> None:
    """Work on every case that has no row yet, or whose row `again` rejects."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    for case in cases:
        old = read(rows).get(f"{case.set}/{case.name}")
        if old is not None and not again(old):
            continue
        started = time.monotonic()
        row = _in_child(case, stage, limits)
        with rows.open("a") as file:
            file.write(json.dumps(row, allow_nan=True) + "\n")
        print(f"{case.set}/{case.name}: {stage.line(row)} ({time.monotonic() - started:.0f} s)", flush=True)


def read(rows: Path) -> dict[str, dict[str, Any]]:
    """The last row of every case."""
    lines = rows.read_text().splitlines() if rows.exists() else []
    found = [json.loads(line) for line in lines if line.strip()]
    return {f"{row['set']}/{row['model']}": row for row in found}


def _in_child(case: Case, stage: Stage, limits: Limits) -> dict[str, Any]:
    """Fork (the libraries are loaded already) and wait; a child that is killed leaves the row of a limit that it ran into."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(case, send, stage, limits))
    child.start()
    send.close()
    row = asdict(stage.row(case.set, case.name))
    try:
        while True:
            row = receive.recv()
    except EOFError:
        child.join()
    if child.exitcode:
        row["error"] = "out of CPU time" if -child.exitcode == signal.SIGXCPU else f"the process ended with {child.exitcode}"
    return row


def _child(case: Case, send: Any, stage: Stage, limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    row = stage.row(case.set, case.name)
    try:
        stage.fill(case, row, lambda: send.send(asdict(row)))
    # Whatever a model or a pass raises is the finding, not a fault of this suite.
    except Exception as failure:  # noqa: BLE001
        place = traceback.extract_tb(failure.__traceback__)[-1]
        message = (str(failure).strip().splitlines() or [""])[0][:300]
        row.error = f"{type(failure).__qualname__}: {message} ({Path(place.filename).name}:{place.lineno})"
    send.send(asdict(row))
    send.close()
