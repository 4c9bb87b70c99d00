"""Values on a grid: stored as unsigned bytes, each standing for step * (byte - zero).

A workload that reads or writes such values has one parameter more, its last input, float32[k, 2]: step and zero of each of its k
tensors on a grid, inputs first, the output last. No call refers to it, and what the calls compute is on the real numbers. So kernels that
differ in their grids only are one kernel, and the database need not know what a calibration found.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .workload import Arg, Call, Ref, TensorType, Workload

QUINT8 = "quint8"  # as torch calls it
MOST = 127  # of the integers that weights are rounded to: symmetric, so that they need no zero point

Integers = NDArray[np.int8]
Floats = NDArray[np.float64]


def on_grid(workload: Workload) -> tuple[int, ...]:
    """Which tensors are on a grid: input numbers in order, the number of inputs for the output. () for most kernels."""
    types = (*workload.inputs, workload.output)
    return tuple(i for i, given in enumerate(types) if given.dtype == QUINT8)


def with_grids(workload: Workload) -> Workload:
    """The workload with the parameter that tells its grids; the same where nothing is on one."""
    count = len(on_grid(workload))
    if not count:
        return workload
    return Workload((*workload.inputs, TensorType((count, 2))), (*workload.roles, "parameter"), _shifted(workload, 1), workload.output)


def without_grids(workload: Workload) -> Workload:
    """Inverse of `with_grids`: what templates see."""
    if not on_grid(workload):
        return workload
    return replace(workload, inputs=workload.inputs[:-1], roles=workload.roles[:-1], calls=_shifted(workload, -1))


def grids_input(workload: Workload) -> int | None:
    """The number of the input that tells the grids."""
    return len(workload.inputs) - 1 if on_grid(workload) else None


def quantise_rows(weight: NDArray[np.float32] | Floats) -> tuple[Integers, Floats]:
    """A finite weight [O, ...] as integers within [-MOST, MOST], and the step [O] of each output channel, which float32 holds exactly."""
    array = weight.astype(np.float64)
    largest = np.abs(array).reshape(len(array), -1).max(1, initial=0.0)
    steps = (np.where(largest > 0, largest, 1.0) / MOST).astype(np.float32).astype(np.float64)
    integers = np.rint(array / steps.reshape(-1, *[1] * (array.ndim - 1)))
    return np.clip(integers, -MOST, MOST).astype(np.int8), steps


def _shifted(workload: Workload, by: int) -> tuple[Call, ...]:
    """The calls with references to other calls moved, as the number of inputs changes."""
    first = len(workload.inputs) - (by < 0)

    def moved(arg: Arg) -> Arg:
        if isinstance(arg, Ref):
            return Ref(arg.index + by) if arg.index >= first else arg
        return tuple(map(moved, arg)) if isinstance(arg, tuple) else arg

    return tuple(Call(c.op, tuple(map(moved, c.args)), tuple((k, moved(v)) for k, v in c.kwargs)) for c in workload.calls)
