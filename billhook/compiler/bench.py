"""Benches: where kernels and networks are measured. This machine, or a remote device."""

import os
import queue
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, cast

import numpy as np
import torch

from billhook.codegen import lower
from billhook.codegen.artifact import Artifact
from billhook.codegen.backend import Backend, Built, Measured, Timer, backend_of
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.remote import DevicePool, Inferences, provenance_of
from billhook.costmodel.machine import this_machine
from billhook.costmodel.statistics import Timing, timing
from billhook.devices import OWN, Device, check_architecture, device_processor, own_target
from billhook.ir.errors import OptionError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, TensorType, Workload

_REPEATS = 30


class Bench(Protocol):
    """Measures for one target. `processor`: what its samples are filed under; `workers`: how many kernels it takes at once."""

    @property
    def target(self) -> Target: ...
    @property
    def processor(self) -> str: ...
    @property
    def workers(self) -> int: ...

    def measure(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        """The fastest correct candidate. MeasureError if there is none."""
        ...

    def outputs(self, artifact: Built, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What a network makes of inputs."""
        ...

    def close(self) -> None: ...


class LocalBench:
    """This machine: a timer on each core that this process may use; one for kernels of several threads, or of a GPU.

    Those of one thread count processor time, so they hardly disturb each other.
    """

    def __init__(self, target: Target, backend: Backend | None = None) -> None:
        backend = backend or backend_of(target)
        self.target = target
        self.processor = ", ".join(filter(None, (this_machine().cpu, backend.device(target))))
        alone = target.threads > 1 or backend.device(target)
        cores = [None] if alone else sorted(os.sched_getaffinity(0))
        self._timers = [backend.timer(target, core) for core in cores]
        self.workers = len(self._timers)
        self._idle: queue.SimpleQueue[Timer] = queue.SimpleQueue()
        for timer in self._timers:
            self._idle.put(timer)

    def measure(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        timer = self._idle.get()
        try:
            return timer.measure_candidates(workload, candidates)
        finally:
            self._idle.put(timer)

    def outputs(self, artifact: Built, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(artifact.run(*inputs))

    def close(self) -> None:
        for timer in self._timers:
            timer.close()


class DeviceBench:
    """A remote device. Made by `open_device`; a context manager, since it holds processes that talk to the device."""

    def __init__(self, pool: DevicePool, target: Target, processor: str, provenance: Provenance = "device") -> None:
        self.pool, self.target, self.processor = pool, target, processor
        self.provenance: Provenance = provenance  # "simulated" where the server runs under emulation
        self.workers = pool.workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        return self.pool.measure_candidates(workload, candidates, self.target)

    def outputs(self, artifact: Built, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.from_numpy(o) for o in self._run(artifact, inputs, 1).outputs]

    def time(self, artifact: Built, inputs: Sequence[torch.Tensor]) -> Timing:
        """Latency of a network on the device: the fastest of its inferences, as on this machine."""
        return timing(self._run(artifact, inputs, _REPEATS).seconds, "minimum", provenance=self.provenance)

    def close(self) -> None:
        self.pool.close()

    def _run(self, artifact: Built, inputs: Sequence[torch.Tensor], repeats: int) -> Inferences:
        with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
            library = Path(folder, "network.so")
            cast("Artifact", artifact).export(library)  # devices are processors: others are refused when opened
            arrays = [np.ascontiguousarray(t.detach().numpy()) for t in inputs]
            return self.pool.run(library, arrays, self.target.threads, repeats=repeats)


def open_device(device: Device, target: Target | None = None, threads: int = 1) -> DeviceBench:
    """Reach a device and find out what it is. target: None takes the device's own.

    Raises DeviceError where it does not answer or is of another architecture, OptionError where its target is not known.
    """
    if target is None and device.target not in OWN:
        raise OptionError(f"device {device.name}: target {device.target!r} is not supported yet; use llvm, its own processor")
    pool = DevicePool(device)
    try:
        facts = pool.facts()
        check_architecture(device, facts)
        found = target or own_target(device, facts, threads)
        return DeviceBench(pool, found, device_processor(device, facts), provenance_of(facts.cpuinfo, found))
    except BaseException:
        pool.close()
        raise


def try_device(bench: DeviceBench) -> Latency:
    """Measure a small convolution, whose result is checked. MeasureError, DeviceError."""
    block = bench.target.channel_block(16)
    image = TensorType((1, 16, 14, 14), block=block)
    call = Call("aten.conv2d.default", (Ref(0), Ref(1), Ref(2), (1, 1), (1, 1), (1, 1), 1))
    parameters = (TensorType((16, 16, 3, 3)), TensorType((16,)))
    workload = Workload((image, *parameters), ("activation", "parameter", "parameter"), (call,), image)
    return bench.measure(workload, lower.candidates(workload, bench.target)[:1]).latency
