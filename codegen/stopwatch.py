"""Timing of built kernels inside one process: cold weights, and samples kept only while the core is undisturbed."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from billhook.ir.target import Target

from .cpu.vector import accumulate, flat_kernel, load, loop, register, splat, store
from .lower import KERNEL, tvm_target
from .tvm_any import T, tvm

_DISTURBED = 1.04  # a probe this much slower than the fastest one seen means that something else uses the core
_CHAINS, _LINKS = 10, 4000  # multiply-adds of a probe: independent ones enough to hide their latency
_SAMPLE_SECONDS = 3e-4  # calls are repeated until a sample takes this long


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call over several samples: fastest, lower quartile (of several threads: fastest again), upper quartile.

    quiet: whether the core was undisturbed.
    """

    low: float
    seconds: float
    high: float
    quiet: bool


class Stopwatch:
    """Times calls of kernels: by processor time where they have one thread, else by the clock on the wall.

    A probe, a fixed chain of multiply-adds, runs beside every sample: other work on the core slows the probe too.
    """

    def __init__(self, target: Target) -> None:
        self._lanes = target.lanes
        self._shared = target.threads > 1
        self._clock: Callable[[], float] = time.perf_counter if self._shared else time.thread_time
        self._probe = _built(_probe_kernel(target.lanes), target)
        self._probe_args = (_tensor(target.lanes), _tensor(target.lanes))
        nothing = _built(flat_kernel([1, 1, 1, 1], lambda *p: T.buffer_store(p[-1], p[0][0], [0])), target)
        args = tuple(_tensor(1) for _ in range(4))
        self._fastest_probe = min(self._probe_time() for _ in range(200))
        self._overhead = 0.0
        self._overhead = min(_seconds(nothing, [args] * 500) for _ in range(5))

    @property
    def peak(self) -> float:
        """Multiply-adds on single numbers per second, at most, on one core."""
        return _CHAINS * _LINKS * self._lanes / self._fastest_probe

    def time(self, kernel: Callable[..., Any], argument_sets: Sequence[Sequence[Any]], budget: float, give_up_above: float) -> Timing:
        """Seconds per call of `kernel`, cycling through `argument_sets`, measured for about `budget` seconds.

        On a disturbed core it goes on for up to five times the budget; it stops early when a quiet sample exceeds `give_up_above`.
        """
        for args in argument_sets[:2]:
            kernel(*args)
        once = max(_seconds(kernel, argument_sets[:1], self._clock), 1e-7)
        count = max(1, round(_SAMPLE_SECONDS / once))
        rotation = itertools.cycle(argument_sets)  # from sample to sample too: short samples are rarely disturbed
        quiet: list[float] = []
        noisy: list[float] = []
        started = time.perf_counter()
        while True:
            calls = list(itertools.islice(rotation, count))
            before = self._probe_time()
            sample = max(_seconds(kernel, calls, self._clock) - self._overhead, 1e-9)
            after = self._probe_time()
            limit = self._fastest_probe * _DISTURBED
            (quiet if before <= limit and after <= limit else noisy).append(sample)
            elapsed = time.perf_counter() - started
            if (len(quiet) >= 3 and (elapsed > budget or quiet[-1] > give_up_above)) or elapsed > 5 * budget:
                return _summary(quiet or noisy, bool(quiet), self._shared)

    def _probe_time(self) -> float:
        """By the clock on the wall, which cannot run behind: processor time is sometimes booked late, and one probe that seemed to take
        nothing would make every later one look disturbed.
        """
        taken = _seconds(self._probe, [self._probe_args], time.perf_counter)
        self._fastest_probe = min(getattr(self, "_fastest_probe", taken), taken)
        return taken


def _summary(samples: list[float], quiet: bool, shared: bool) -> Timing:
    """Of several threads the fastest sample counts: by the wall's clock, whatever else runs on one of the cores adds its time."""
    ordered = sorted(samples)
    return Timing(ordered[0], ordered[0 if shared else len(ordered) // 4], ordered[3 * len(ordered) // 4], quiet)


def _seconds(kernel: Callable[..., Any], calls: Sequence[Sequence[Any]], clock: Callable[[], float] = time.thread_time) -> float:
    """Mean seconds of these calls; of processor time unless told otherwise: time in which another process has the core does not count."""
    started = clock()
    for args in calls:
        kernel(*args)
    return (clock() - started) / len(calls)


def _probe_kernel(lanes: int) -> Any:
    """Multiply-adds on independent registers, as a convolution issues them."""

    def body(source: Any, result: Any) -> None:
        sums = [register(lanes) for _ in range(_CHAINS)]
        with loop(0, _LINKS):
            for s in sums:
                store(s, 0, load(s, 0, lanes) * splat(0.5, lanes) + load(source, 0, lanes), lanes)
        for s in sums[1:]:
            accumulate(sums[0], load(s, 0, lanes), lanes)
        store(result, 0, load(sums[0], 0, lanes), lanes)

    return flat_kernel([lanes, lanes], body)


def _built(function: Any, target: Target) -> Any:
    return tvm.tirx.build(tvm.IRModule({KERNEL: function}), target=tvm_target(target))[KERNEL]


def _tensor(elements: int) -> Any:
    return tvm.runtime.empty((elements,), "float32")
