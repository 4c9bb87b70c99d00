"""Measuring kernels: every candidate of a workload is built, checked against torch and timed in an isolated process."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import IO, Any, Self

from billhook.ir.errors import MeasureError
from billhook.ir.latency import Latency
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import lower
from .cpu.candidate import Candidate, candidate_to_json

_START_SECONDS = 120.0
_LOSING = 1.15  # a candidate this much slower than the best so far is not sampled further


@dataclass(frozen=True, slots=True)
class Measured:
    """The fastest correct candidate of a workload, its latency, and the candidates that failed with the reason of each."""

    workload: Workload
    candidate: Candidate
    latency: Latency
    rejected: tuple[tuple[Candidate, str], ...] = ()


class KernelTimer:
    """Times kernels for a target in a child process that is pinned to one core, and restarted when a kernel hangs or crashes.

    budget: seconds of timing per candidate; timeout: seconds after which a candidate is rejected; core: None takes the last core that
    this process may use; cold_bytes: parameters are rotated through copies of at least this total size.
    """

    def __init__(
        self, target: Target, *, budget: float = 0.03, timeout: float = 60.0, core: int | None = None, cold_bytes: int = 8 << 20
    ) -> None:
        self._target, self._budget, self._timeout = target, budget, timeout
        chosen = max(os.sched_getaffinity(0)) if core is None else core
        self._options = json.dumps({"target": asdict(target), "core": chosen, "cold_bytes": cold_bytes})
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()

    def measure(self, workload: Workload) -> Measured:
        """The fastest correct candidate. MeasureError if the workload has no candidate, or all of them fail."""
        return self.measure_candidates(workload, lower.candidates(workload, self._target))

    def measure_candidates(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        """Like `measure`, among given candidates."""
        best: tuple[Candidate, Latency] | None = None
        rejected: list[tuple[Candidate, str]] = []
        for candidate in candidates:
            found = self._time(workload, candidate, best[1].seconds * _LOSING if best else 1e9)
            if isinstance(found, str):
                rejected.append((candidate, found))
            elif best is None or found.seconds < best[1].seconds:
                best = candidate, found
        if best is None:
            why = "; ".join(f"{c}: {r}" for c, r in rejected) or "no template covers it"
            raise MeasureError(f"no kernel for {workload}: {why}")
        return Measured(workload, best[0], best[1], tuple(rejected))

    def measure_many(self, workloads: Iterable[Workload], on_result: Callable[[Measured], None]) -> tuple[Measured, ...]:
        """Measure one after the other; `on_result` is called after each, so that nothing is lost when interrupted."""
        results: list[Measured] = []
        for workload in workloads:
            results.append(self.measure(workload))
            on_result(results[-1])
        return tuple(results)

    def _time(self, workload: Workload, candidate: Candidate, give_up_above: float) -> Latency | str:
        """The candidate's latency, or why it is rejected."""
        child = self._running()
        request = {
            "workload": workload.key,
            "candidate": candidate_to_json(candidate),
            "budget": self._budget,
            "give_up_above": give_up_above,
        }
        try:
            _send(child, request)
            reply = _receive(child, self._timeout)
        except TimeoutError:
            self.close()
            return f"took more than {self._timeout:g} s"
        except (EOFError, BrokenPipeError):
            code = child.wait()
            self.close()
            return f"crashed the measuring process (exit status {code})"
        if "rejected" in reply:
            return str(reply["rejected"])
        return Latency(reply["seconds"], reply["low"], reply["high"], "host")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        command = [sys.executable, "-m", "billhook.codegen.worker", self._options]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            _receive(self._child, _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self.close()
            raise MeasureError("the measuring process does not start; run `billhook doctor`") from error
        return self._child


def _send(child: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()


def _receive(child: subprocess.Popen[bytes], timeout: float) -> dict[str, Any]:
    """The next reply. EOFError if the child ended, TimeoutError if it stays silent."""
    assert child.stdout is not None
    return json.loads(_read_line(child.stdout, time.monotonic() + timeout))


def _read_line(stream: IO[bytes], deadline: float) -> bytes:
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                raise EOFError
            line += chunk
    return line
