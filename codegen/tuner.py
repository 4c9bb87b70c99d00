"""What to try for a workload: its template's candidates, or tuned schedules where it has no template.

A kernel without a template is tuned once per family (the same calls on tensors of the same ranks): its first workload is
the anchor, and the schedules found there are replayed on every other width.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from billhook.ir.errors import MeasureError
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import generic, metaschedule
from .backend import Backend, backend_of
from .cpu.candidate import Candidate

Family: TypeAlias = tuple[object, ...]


class Tuner:
    """Candidates for workloads, tuning what needs it. Safe under threads; tuning runs one at a time.

    trials: schedules tried per family, 0 leaves kernels without a template untuned (and slow). work_dir: MetaSchedule's files.
    """

    def __init__(self, target: Target, trials: int, work_dir: Path, backend: Backend | None = None) -> None:
        self._backend = backend or backend_of(target)
        self._target, self._trials, self._work_dir = target, trials, work_dir
        self._anchors: dict[Family, list[Candidate]] = {}
        self._lock = threading.Lock()

    def remember(self, known: Iterable[tuple[Workload, Candidate]]) -> None:
        """Take schedules over that earlier runs found."""
        for workload, candidate in known:
            if candidate.template == generic.NAME and candidate.schedule:
                self._anchors.setdefault(family(workload), []).append(candidate)

    def candidates(self, workload: Workload) -> tuple[Candidate, ...]:
        """What to build and time for this workload."""
        plain = self._backend.candidates(workload, self._target)
        if not self._trials or not plain or plain[0].template != generic.NAME:
            return plain
        with self._lock:
            fitting = self._replayed(workload)
            if not fitting:
                self._tune(workload)
                fitting = self._replayed(workload)
        return (*fitting, *plain)

    def _replayed(self, workload: Workload) -> tuple[Candidate, ...]:
        known = dict.fromkeys(self._anchors.get(family(workload), ()))
        return tuple(c for c in known if metaschedule.replay(c, workload, self._target) is not None)

    def _tune(self, workload: Workload) -> None:
        """One more anchor for the family; where no trial succeeds, the untuned kernel remains."""
        try:
            found = metaschedule.tune(workload, self._target, self._trials, self._work_dir)
        except MeasureError:
            return
        self._anchors.setdefault(family(workload), []).append(found)


def family(workload: Workload) -> Family:
    """Equal for workloads that differ in sizes only."""
    return (*(call.op for call in workload.calls), *(len(t.shape) for t in (*workload.inputs, workload.output)))
