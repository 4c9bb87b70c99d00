"""Comparison: our builds and the peers' runtimes, dense and pruned, timed in turns in one process."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from billhook.costmodel.statistics import Rounds, Timing, interleave, undisturbed
from billhook.costmodel.work import kernel_bytes, kernel_flops
from billhook.ir.latency import Latency
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.ir.tensors import tensors_in
from billhook.passes.prune import Pruned
from billhook.peers import Absent, Subject, build_peer

from .engine import Build, Engine

OURS = "billhook"
# What else runs on the machine only ever adds time, and often for seconds: neighbours of a virtual machine share its last cache.
FASTEST = Rounds(statistic="minimum")
PAIR = Rounds(count=90, statistic="minimum")  # as long as the others, with fewer contenders


@dataclass(frozen=True)
class KernelTime:
    """A kernel of the build: as the cost model has it, as it runs inside the network, and its work.

    flops: nominal operations, multiply and add count 2; bytes: every input and the output once.
    """

    name: str
    workload: str
    predicted: Latency
    measured: Latency
    flops: int
    bytes: int


@dataclass(frozen=True)
class Comparison:
    """Timings by runtime, dense and pruned, taken in the same rounds; absent: why a peer takes no part."""

    dense: Mapping[str, Timing]
    pruned: Mapping[str, Timing]
    absent: Mapping[str, str]

    @property
    def best_dense(self) -> Latency:
        """The fastest dense runtime, ours included."""
        return min((t.latency for t in self.dense.values()), key=lambda latency: latency.seconds)

    @property
    def ours_dense(self) -> Latency:
        return self.dense[OURS].latency

    @property
    def ours_pruned(self) -> Latency:
        return self.pruned[OURS].latency


class Contest:
    """Who is compared. The dense contenders are built once; they take part in every later round of measurements."""

    def __init__(self, program: Program, dense: Build, peers: Sequence[str], threads: int, progress: Progress) -> None:
        assert program.model is not None
        self.program, self.build, self.progress, self.threads = program, dense, progress, threads
        self.names = tuple(peers)
        self.absent: dict[str, str] = {}
        self._dense = self._contenders(program.model, dense)
        self._reference: Latency | None = None
        self._beside: Mapping[str, Callable[[], object]] = {}

    def dense(self, rounds: Rounds = FASTEST) -> Comparison:
        """Time the dense contenders."""
        with quiet(self.threads):
            timings = interleave(self._dense, rounds, progress=self.progress)
        self._reference = timings[OURS].latency
        peers = sorted((n for n in timings if n != OURS), key=lambda n: timings[n].latency.seconds)
        self._beside = {name: self._dense[name] for name in (OURS, *peers[:1])}
        return Comparison(timings, {}, self.absent)

    def of_build(self, build: Build) -> Latency:
        """Latency of a pruned build: its ratio to our dense build in the same rounds, times the dense build's latency.

        So a machine whose clock drifts between the stages of a run does not look like a faster or slower network; while the dense
        build is slowed by something else, the rounds are repeated. The fastest dense peer takes part: two small networks alone
        would keep each other's weights in the last cache, which in the end they cannot.
        """
        with quiet(self.threads):
            contenders = {"pruned": build.artifact.bind(*self.inputs), **self._beside}
            timings = undisturbed(lambda: interleave(contenders, PAIR), OURS, self._known)
        return timings["pruned"].latency.scaled(self._known / timings[OURS].latency.seconds)

    @property
    def _known(self) -> float:
        """Seconds of our dense build, as first measured."""
        assert self._reference is not None
        return self._reference.seconds

    def drift(self, final: Comparison) -> float:
        """How much slower the machine is in the final rounds than it was in the first, by our dense build: predictions go with it."""
        return final.ours_dense.seconds / self._known

    def final(self, pruned: Pruned, build: Build, rounds: Rounds = FASTEST) -> Comparison:
        """Time everything, dense and pruned, in the same rounds."""
        small = self._contenders(pruned.model, build)
        both = {("dense", n): c for n, c in self._dense.items()} | {("pruned", n): c for n, c in small.items()}
        calls = {"/".join(key): call for key, call in both.items()}
        with quiet(self.threads):
            timings = undisturbed(lambda: interleave(calls, rounds, progress=self.progress), f"dense/{OURS}", self._known, attempts=2)
        split = {side: {n: timings[f"{side}/{n}"] for s, n in both if s == side} for side in ("dense", "pruned")}
        return Comparison(split["dense"], split["pruned"], self.absent)

    @property
    def inputs(self) -> list[torch.Tensor]:
        """The example's tensors, in order."""
        return tensors_in(self.program.example)

    def _contenders(self, model: nn.Module, build: Build) -> dict[str, Callable[[], object]]:
        contenders: dict[str, Callable[[], object]] = {OURS: build.artifact.bind(*self.inputs)}
        subject = Subject(model, *self.program.example)
        for place, name in enumerate(self.names):
            self.progress("build peers", place, len(self.names))
            peer = build_peer(subject, name, self.threads)
            if isinstance(peer, Absent):
                self.absent[name] = peer.reason
            else:
                contenders[name] = peer.run
        self.progress("build peers", len(self.names), len(self.names))
        return contenders


def kernel_times(build: Build, inputs: Sequence[torch.Tensor], engine: Engine) -> tuple[KernelTime, ...]:
    """Each kernel as it was timed alone and as it runs inside the network."""
    with quiet(engine.target.threads):
        inside = engine.backend.profile(build.artifact, inputs)
    rows: list[KernelTime] = []
    for kernel, (name, measured) in zip(build.network.kernels, inside, strict=True):
        alone = engine.costs.cost(kernel.workload).latency
        assert alone is not None
        rows.append(KernelTime(name, str(kernel.workload), alone, measured, kernel_flops(kernel.workload), kernel_bytes(kernel.workload)))
    return tuple(rows)


@contextmanager
def quiet(threads: int) -> Generator[None]:
    """As many cores and torch threads as the target has: nothing migrates, nobody gets more than another."""
    cores, before = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(cores)[-threads:])
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
        os.sched_setaffinity(0, cores)
