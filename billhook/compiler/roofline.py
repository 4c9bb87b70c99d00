"""What the processor can do at most, measured: multiply-adds on registers, and copying between places in memory.

The two bounds of the roofline model (Williams, Waterman, Patterson 2009): a kernel takes at least its operations over the
first, and, where its data comes from memory, its bytes over the second.
"""

import time
from dataclasses import dataclass

import torch

from billhook.codegen.stopwatch import Stopwatch
from billhook.ir.target import Target

from .compare import quiet

_COPIED = 64 << 20  # bytes: beyond the caches' share of one core
_COPIES = 12


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of all threads of a target together: float operations per second (a multiply-add counts 2), and bytes per second read and written."""

    operations: float
    bandwidth: float


def measure_peaks(target: Target) -> Peaks:
    """Measure this machine, which takes about a second."""
    with quiet(target.threads):
        return Peaks(2 * Stopwatch(target).peak * target.threads, _copied_per_second())


def _copied_per_second() -> float:
    """Bytes read plus bytes written per second; by the threads that torch has."""
    source, result = torch.ones(_COPIED // 4), torch.empty(_COPIED // 4)
    fastest = min(_seconds(source, result) for _ in range(_COPIES))
    return 2 * _COPIED / fastest


def _seconds(source: torch.Tensor, result: torch.Tensor) -> float:
    begun = time.perf_counter()
    result.copy_(source)
    return time.perf_counter() - begun
