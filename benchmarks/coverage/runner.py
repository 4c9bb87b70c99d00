"""Each case in a child process of its own, with limits on time and memory; rows are appended as they come, so a run resumes."""

import json
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .case import Case
from .measure import Row, measure


def run(cases: Iterable[Case], rows: Path, *, seconds: int, memory: int, again: Callable[[dict[str, Any]], bool]) -> None:
    """Measure every case that has no row yet, or whose row `again` rejects. seconds: CPU time of a case; memory: bytes."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    for case in cases:
        known = read(rows)
        old = known.get(f"{case.set}/{case.name}")
        if old is not None and not again(old):
            continue
        started = time.monotonic()
        row = _in_child(case, seconds, memory)
        with rows.open("a") as file:
            file.write(json.dumps(row, allow_nan=True) + "\n")
        print(f"{_line(row)} ({time.monotonic() - started:.0f} s)", flush=True)


def _line(row: dict[str, Any]) -> str:
    first = (row["error"].splitlines() or [""])[0][:200]
    verdict = "ok" if row["oracle_ok"] and row["trained"] else f"{row['stage']}: {first}"
    return f"{row['set']}/{row['model']}: {verdict} share {row['prunable_share']:.2f} error {row['oracle_error']:.1e}"


def read(rows: Path) -> dict[str, dict[str, Any]]:
    """The last row of every case."""
    lines = rows.read_text().splitlines() if rows.exists() else []
    found = [json.loads(line) for line in lines if line.strip()]
    return {f"{row['set']}/{row['model']}": row for row in found}


def _in_child(case: Case, seconds: int, memory: int) -> dict[str, Any]:
    """Fork (the libraries are loaded already) and wait; a child that is killed leaves the row of a limit that it ran into."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(case, send, seconds, memory))
    child.start()
    send.close()
    row = Row(case.set, case.name).as_dict()
    try:
        while True:
            row = receive.recv()
    except EOFError:
        child.join()
    if child.exitcode:
        row["error"] = "out of CPU time" if -child.exitcode == signal.SIGXCPU else f"the process ended with {child.exitcode}"
    return row


def _child(case: Case, send: Any, seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    row = Row(case.set, case.name)
    try:
        measure(case, row, lambda: send.send(row.as_dict()))
    # Whatever a model or a pass raises is the finding, not a fault of this suite.
    except Exception as failure:  # noqa: BLE001
        place = traceback.extract_tb(failure.__traceback__)[-1]
        message = (str(failure).strip().splitlines() or [""])[0][:300]
        row.error = f"{type(failure).__qualname__}: {message} ({Path(place.filename).name}:{place.lineno})"
        row.wrong = False
    send.send(row.as_dict())
    send.close()
