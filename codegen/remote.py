"""Measuring on remote devices: kernels go to as many servers at once as the tracker has, and to another where one dies."""

import queue
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from billhook.ir.errors import DeviceError, MeasureError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .child import Child
from .cpu.candidate import Candidate, candidate_to_json
from .device import Device, Facts, identity
from .timer import COLD_BYTES, Measured, fastest
from .tracker import no_server, registered

_ATTEMPTS = 2  # a kernel that took two servers with it is not tried on a third
_START_SECONDS = 300.0
_BUILD_SECONDS = 120.0  # for building and linking, on this machine
_GRACE = 20.0  # seconds that a server may be away (a board restarts) before the run gives up
_BUSY = 5  # times the device's timeout: how long a server may be kept from us by other users


@dataclass(frozen=True, slots=True)
class Inferences:
    """A network on a device: its outputs, and seconds per inference of each timing."""

    outputs: tuple[np.ndarray, ...]
    seconds: tuple[float, ...]


class DevicePool:
    """All servers of one device. Its methods may be called from `workers` threads at once.

    budget: seconds of timing per candidate; cold_bytes: parameters are rotated through copies of at least this total size;
    grace: seconds that a server may be away before the work is given up. DeviceError if there is no tracker or no server.
    """

    def __init__(self, device: Device, *, budget: float = 0.03, cold_bytes: int = COLD_BYTES, grace: float = _GRACE) -> None:
        self.device, self._budget = device, budget
        patience = _BUSY * device.timeout
        self.workers = registered(device.tracker, device.key)
        if not self.workers:
            raise no_server(device.tracker, device.key)
        self._options = {
            "tracker": [device.tracker.host, device.tracker.port],
            "key": device.key,
            "timeout": device.timeout,
            "patience": patience,
            "grace": grace,
            "cold_bytes": cold_bytes,
        }
        self._deadline = _BUILD_SECONDS + patience + grace + 2 * device.timeout
        self._idle: queue.SimpleQueue[_Line] = queue.SimpleQueue()
        self._lines = [_Line(self._options) for _ in range(self.workers)]
        for line in self._lines:
            self._idle.put(line)
        self._lock = threading.Lock()
        self._identity: tuple[tuple[str, str], ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that talk to the device."""
        for line in self._lines:
            line.close()

    def facts(self) -> Facts:
        """What the device says of itself. DeviceError if it cannot be reached."""
        reply = self._ask({"do": "facts"})
        if "rejected" in reply:
            raise DeviceError(f"device {self.device} does not tell what it is: {reply['rejected']}; run its server with TVM 0.27")
        return Facts(reply["cpuinfo"], reply["mcpu"], reply["triple"])

    def measure_candidates(self, workload: Workload, candidates: Sequence[Candidate], target: Target) -> Measured:
        """The fastest correct candidate on the device.

        MeasureError if none is; DeviceError if no server is left, or the servers are not equal.
        """
        return fastest(workload, candidates, lambda candidate, above: self._time(workload, candidate, target, above))

    def run(self, library: Path, inputs: Sequence[np.ndarray], threads: int, *, repeats: int = 30, least: float = 0.02) -> Inferences:
        """Run a network's library on some server and time it: `repeats` timings of at least `least` seconds each.

        MeasureError if it fails there; DeviceError if no server is left.
        """
        with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
            given, found = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
            np.savez(given, *inputs)
            request = {"do": "network", "library": str(library), "inputs": str(given), "outputs": str(found)}
            reply = self._ask({**request, "threads": threads, "repeats": repeats, "slice": least})
            if "rejected" in reply:
                raise MeasureError(f"the network fails on device {self.device}: {reply['rejected']}")
            with np.load(found) as file:
                return Inferences(tuple(file[name] for name in file.files), tuple(reply["seconds"]))

    def _time(self, workload: Workload, candidate: Candidate, target: Target, above: float) -> Latency | str:
        """The candidate's latency, or why it is rejected."""
        reply = self._ask(
            {
                "do": "kernel",
                "workload": workload.key,
                "candidate": candidate_to_json(candidate),
                "target": asdict(target),
                "budget": self._budget,
                "give_up_above": above,
            }
        )
        if "rejected" in reply:
            return str(reply["rejected"])
        self._check_equal(reply["cpuinfo"])
        return Latency(reply["seconds"], reply["low"], reply["high"], provenance_of(reply["cpuinfo"], target))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply of whatever server takes the request; another one gets it if the first is lost."""
        lost: list[str] = []
        line = self._idle.get()
        try:
            while len(lost) < _ATTEMPTS:
                reply = line.ask(request, self._deadline)
                if "absent" in reply:
                    raise DeviceError(f"device {self.device.name}: {reply['absent']}{_also(lost)}")
                if "lost" not in reply:
                    return reply
                lost.append(str(reply["lost"]))
        finally:
            self._idle.put(line)
        return {"rejected": f"lost its server {len(lost)} times, perhaps by crashing it: {lost[-1]}"}

    def _check_equal(self, cpuinfo: str) -> None:
        """All servers of a device must have one processor model: their samples are mixed."""
        with self._lock:
            found = identity(cpuinfo)
            if self._identity is None:
                self._identity = found
            if found != self._identity:
                names = " and ".join(str(dict(i).get("model name") or dict(i)) for i in (self._identity, found))
                raise DeviceError(f"device {self.device}: its servers have different processors ({names}); give them different keys")


class _Line:
    """A process that talks to servers, begun anew when it dies. Used by one thread at a time."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._child: Child | None = None

    def close(self) -> int:
        child, self._child = self._child, None
        return child.end() if child is not None else 0

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The reply; {"lost": reason} if there is none. DeviceError if the process does not start, which is no kernel's fault."""
        child = self._running()
        try:
            return child.ask(request, timeout)
        except TimeoutError:
            self.close()
            return {"lost": f"no answer within {timeout:g} s"}
        except EOFError:
            return {"lost": f"the process that talks to the device crashed (exit status {self.close()})"}

    def _running(self) -> Child:
        if self._child is None or not self._child.alive:
            self.close()
            try:
                self._child = Child("billhook.codegen.remote_worker", self._options, _START_SECONDS)
            except (EOFError, TimeoutError) as error:
                raise DeviceError("the process that talks to the device does not start; run `billhook doctor`") from error
        return self._child


def provenance_of(cpuinfo: str, target: Target) -> Provenance:
    """What times of a server are: an arm64 server whose processor is an x86 one runs under emulation, so its times mean nothing."""
    return "simulated" if target.triple.startswith("aarch64") and "vendor_id" in cpuinfo else "device"


def _also(lost: list[str]) -> str:
    return f" (before that, {lost[-1]})" if lost else ""
