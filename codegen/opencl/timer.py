"""Tuning for OpenCL: candidates are built, checked against torch and timed in a process of their own, under a timeout."""

from dataclasses import asdict

from billhook.codegen.backend import Measured
from billhook.codegen.child import Child
from billhook.codegen.cpu.candidate import Candidate, candidate_to_json
from billhook.codegen.timer import fastest
from billhook.ir.errors import DeviceError, MeasureError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.target import Target
from billhook.ir.workload import Workload


class OpenClTimer:
    """Times kernels on this machine's OpenCL device.

    budget: seconds of timing per candidate; timeout: seconds for building, checking and timing one, after which it is rejected;
    provenance: "device" for a GPU, "host" for OpenCL on the processor.
    """

    def __init__(self, target: Target, provenance: Provenance, *, budget: float = 0.05, timeout: float = 90.0) -> None:
        self._target, self._budget, self._timeout = target, budget, timeout
        self._provenance: Provenance = provenance
        self._child: Child | None = None

    def close(self) -> int:
        """End the child process; its exit status (0 if there is none)."""
        child, self._child = self._child, None
        return child.end() if child is not None else 0

    def measure_candidates(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        """The fastest correct candidate. MeasureError if there is none, DeviceError where the device is gone."""
        return fastest(workload, candidates, lambda candidate, above: self._time(workload, candidate, above))

    def _time(self, workload: Workload, candidate: Candidate, give_up_above: float) -> Latency | str:
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
                self._child = Child("billhook.codegen.opencl.worker", {"target": asdict(self._target)})
            except (EOFError, TimeoutError) as error:
                raise MeasureError("the process that tries OpenCL kernels does not start; run `billhook doctor`") from error
        return self._child
