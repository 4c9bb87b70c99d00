"""Choosing arm64 kernels without a device: the candidate with the lowest static estimate, whose result is not checked here."""

from billhook.codegen.backend import Measured
from billhook.codegen.cpu import winograd
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.timer import fastest
from billhook.ir.errors import MeasureError
from billhook.ir.latency import Latency
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .estimate import estimate

CYCLE = 1e-9  # seconds that stand for a cycle, so that estimates can be added and compared like latencies; never a time


class StaticTimer:
    """Ranks candidates by llvm-mca. Latencies are cycles at a nominal 1 GHz with the provenance "static"."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def close(self) -> int:
        return 0

    def measure_candidates(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        """The candidate with the fewest cycles; transforms of Winograd are outside of what is estimated, so it takes no part."""
        fair = tuple(c for c in candidates if c.template != winograd.NAME) or candidates
        return fastest(workload, fair, lambda candidate, _: self._cycles(workload, candidate))

    def _cycles(self, workload: Workload, candidate: Candidate) -> Latency | str:
        try:
            seconds = max(estimate(workload, candidate, self._target).cycles, 1.0) * CYCLE
        except MeasureError as error:
            if "no inner loop" not in str(error):
                return str(error)
            seconds = max(workload.output.elements, 1) * CYCLE  # straight-line code: about an element a cycle
        return Latency(seconds, seconds, seconds, "static")
