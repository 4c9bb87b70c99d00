"""The comparison on a remote device: our dense and our pruned build, measured there. The peers' runtimes are not on the device."""

from collections.abc import Sequence

import torch

from billhook.costmodel.statistics import Timing
from billhook.costmodel.work import kernel_bytes, kernel_flops
from billhook.ir.latency import Latency
from billhook.ir.program import Program
from billhook.ir.tensors import tensors_in
from billhook.passes.prune import Pruned

from .bench import DeviceBench
from .compare import OURS, Comparison, KernelTime
from .engine import Build, Engine


class DeviceContest:
    """As `Contest`, on a device. Its builds take turns only as whole measurements, so the device should have nothing else to do."""

    def __init__(self, program: Program, dense: Build, peers: Sequence[str], bench: DeviceBench) -> None:
        self.program, self.build, self._bench = program, dense, bench
        self.absent = dict.fromkeys(peers, f"it is not on device {bench.pool.device.name}")

    def dense(self) -> Comparison:
        """Time the dense build."""
        return Comparison({OURS: self._timing(self.build)}, {}, self.absent)

    def of_build(self, build: Build) -> Latency:
        """Latency of a pruned build."""
        return self._timing(build).latency

    def final(self, _pruned: Pruned, build: Build) -> Comparison:
        """Time both builds, one after the other."""
        return Comparison({OURS: self._timing(self.build)}, {OURS: self._timing(build)}, self.absent)

    def drift(self, _final: Comparison) -> float:
        """1: a device's clock is taken as it is."""
        return 1.0

    @property
    def inputs(self) -> list[torch.Tensor]:
        """The example's tensors, in order."""
        return tensors_in(self.program.example)

    def _timing(self, build: Build) -> Timing:
        return self._bench.time(build.artifact, self.inputs)


def device_kernel_times(build: Build, engine: Engine) -> tuple[KernelTime, ...]:
    """Each kernel as it was timed alone on the device: TVM cannot look inside a network that runs over RPC."""
    rows: list[KernelTime] = []
    for kernel in build.network.kernels:
        alone = engine.costs.cost(kernel.workload).latency
        assert alone is not None
        work = kernel_flops(kernel.workload), kernel_bytes(kernel.workload)
        rows.append(KernelTime(kernel.name, str(kernel.workload), alone, alone, *work))
    return tuple(rows)
