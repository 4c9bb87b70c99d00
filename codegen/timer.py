"""Measuring kernels: every candidate of a workload is built, checked against torch and timed in an isolated process."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Self, TypeAlias

from billhook.ir.errors import DeviceError, MeasureError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import lower
from .backend import Measured
from .child import Child
from .cpu.candidate import Candidate, candidate_to_json

COLD_BYTES = 64 << 20  # beyond the last cache, too: with weights from there, kernels with many of them look faster than they are
_LOSING = 1.15  # a candidate this much slower than the best so far is not sampled further

TimeCandidate: TypeAlias = Callable[[Candidate, float], Latency | str]  # latency or why not, given up above so many seconds


class ChildTimer:
    """Times candidates in a child process, which is restarted when a kernel hangs or crashes.

    module, options: of the child; called: what it is in messages; budget: seconds of timing per candidate; timeout: seconds after which
    a candidate is rejected; provenance: what its latencies are.
    """

    def __init__(
        self, module: str, options: dict[str, Any], called: str, *, budget: float, timeout: float, provenance: Provenance = "host"
    ) -> None:
        self._module, self._options, self._called = module, options, called
        self._budget, self._timeout = budget, timeout
        self._provenance: Provenance = provenance
        self._child: Child | None = None

    def close(self) -> int:
        """End the child process; its exit status (0 if there is none)."""
        child, self._child = self._child, None
        return child.end() if child is not None else 0

    def measure_candidates(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        """The fastest correct candidate. MeasureError if there is none, or all of them fail; DeviceError where nothing can be measured."""
        return fastest(workload, candidates, lambda candidate, above: self._time(workload, candidate, above))

    def _time(self, workload: Workload, candidate: Candidate, give_up_above: float) -> Latency | str:
        """The candidate's latency, or why it is rejected."""
        request = {
            "workload": workload.key,
            "candidate": candidate_to_json(candidate),
            "budget": self._budget,
            "give_up_above": give_up_above,
        }
        try:
            reply = self._running().ask(request, self._timeout)
        except TimeoutError:
            self.close()
            return f"took more than {self._timeout:g} s"
        except EOFError:
            return f"crashed the measuring process (exit status {self.close()})"
        if "gone" in reply:
            raise DeviceError(str(reply["gone"]))
        if "rejected" in reply:
            return str(reply["rejected"])
        return Latency(reply["seconds"], reply["low"], reply["high"], self._provenance)

    def _running(self) -> Child:
        if self._child is None or not self._child.alive:
            self.close()
            try:
                self._child = Child(self._module, self._options)
            except (EOFError, TimeoutError) as error:
                raise DeviceError(f"{self._called} does not start; run `billhook doctor`") from error  # no fault of the kernel
        return self._child


class KernelTimer(ChildTimer):
    """Times kernels of this processor.

    Kernels of one thread are pinned to one core; those of several have all cores of this process: use one timer at a time.
    core: None takes the last core that this process may use; cold_bytes: parameters are rotated through copies of at least this
    total size; budget, timeout: as of `ChildTimer`.
    """

    def __init__(
        self, target: Target, *, budget: float = 0.03, timeout: float = 60.0, core: int | None = None, cold_bytes: int = COLD_BYTES
    ) -> None:
        self._target = target
        chosen = max(os.sched_getaffinity(0)) if core is None else core
        options = {"target": asdict(target), "core": chosen, "cold_bytes": cold_bytes}
        super().__init__("billhook.codegen.worker", options, "the measuring process", budget=budget, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, workload: Workload) -> Measured:
        """The fastest correct candidate. MeasureError if the workload has no candidate, or all of them fail."""
        return self.measure_candidates(workload, lower.candidates(workload, self._target))

    def measure_many(self, workloads: Iterable[Workload], on_result: Callable[[Measured], None]) -> tuple[Measured, ...]:
        """Measure one after the other; `on_result` is called after each, so that nothing is lost when interrupted."""
        results: list[Measured] = []
        for workload in workloads:
            results.append(self.measure(workload))
            on_result(results[-1])
        return tuple(results)


def fastest(workload: Workload, candidates: Iterable[Candidate], time: TimeCandidate) -> Measured:
    """The fastest of the candidates that `time` does not reject. MeasureError, with each reason, if none is left."""
    best: tuple[Candidate, Latency] | None = None
    rejected: list[tuple[Candidate, str]] = []
    for candidate in candidates:
        found = time(candidate, best[1].seconds * _LOSING if best else 1e9)
        if isinstance(found, str):
            rejected.append((candidate, found))
        elif best is None or found.seconds < best[1].seconds:
            best = candidate, found
    if best is None:
        why = "; ".join(f"{c}: {r}" for c, r in rejected) or "no template covers it"
        raise MeasureError(f"no kernel for {workload}: {why}")
    return Measured(workload, best[0], best[1], tuple(rejected))
