"""A compiler whose latencies are counted from operations, not measured: its decisions are the same on every machine, and take no time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from billhook.codegen.backend import Built, Measured
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.host import host_target
from billhook.compiler import pipeline
from billhook.compiler.bench import Bench
from billhook.compiler.compare import OURS, Comparison
from billhook.compiler.engine import Build, Engine
from billhook.compiler.pipeline import Compiler, Job
from billhook.compiler.result import Result
from billhook.costmodel.statistics import Timing, timing
from billhook.costmodel.work import kernel_flops
from billhook.ir.errors import MeasureError
from billhook.ir.latency import Latency
from billhook.ir.progress import no_progress
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.prune import Pruned

SLOWER = 1.3  # a network takes so much more than the sum of its kernels


def counted_seconds(workload: Workload) -> float:
    """A microsecond, and one more for every 50,000 operations."""
    return 1e-6 + kernel_flops(workload) / 5e10


class CountedBench:
    """Takes the first candidate of every kernel."""

    def __init__(self, target: Target) -> None:
        self.target, self.processor, self.workers = target, "counted operations", 1

    def measure(self, workload: Workload, candidates: tuple[Candidate, ...]) -> Measured:
        if not candidates:
            raise MeasureError(f"no candidate for {workload}")
        seconds = counted_seconds(workload)
        return Measured(workload, candidates[0], Latency(seconds, seconds, seconds))

    def outputs(self, artifact: Built, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(artifact.run(*inputs))

    def close(self) -> None: ...


class CountedContest:
    """Our builds alone; a network takes `SLOWER` times its kernels."""

    def __init__(self, program: object, dense: Build, *_: object) -> None:
        self.program, self.build = program, dense
        self.inputs: list[torch.Tensor] = []

    def of_build(self, build: Build) -> Latency:
        return self._timing(build).latency

    def dense(self) -> Comparison:
        return Comparison({OURS: self._timing(self.build)}, {}, {})

    def final(self, _pruned: Pruned, build: Build) -> Comparison:
        return Comparison({OURS: self._timing(self.build)}, {OURS: self._timing(build)}, {})

    def drift(self, _final: Comparison) -> float:
        return 1.0

    def _timing(self, build: Build) -> Timing:
        return timing([SLOWER * sum(counted_seconds(k.workload) for k in build.network.kernels)] * 9)


def counted_compile(make: Callable[[Target], Job], folder: Path, patch: Callable[[object, str, object], None]) -> Result:
    """Compile a job for this machine with counted latencies. patch: pytest's `monkeypatch.setattr`."""
    patch(pipeline, "Contest", CountedContest)
    patch(pipeline, "kernel_times", lambda *_: ())
    patch(pipeline, "measure_peaks", lambda *_: None)
    target = host_target()
    bench: Bench = CountedBench(target)
    with Engine(target, folder / "counted.sqlite", no_progress, bench=bench) as engine:
        return Compiler(make(target), engine, no_progress).run()
