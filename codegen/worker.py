"""The measuring process: builds, checks and times one candidate per request. Run as `python -m billhook.codegen.worker OPTIONS`.

Requests and replies are JSON lines. A kernel that crashes or hangs takes only this process with it; timer.py starts another.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from billhook.ir.errors import MeasureError
from billhook.ir.target import Target
from billhook.ir.workload import Workload, workload_from_json

from . import lower
from .child import serve
from .cpu.candidate import Candidate, candidate_from_json
from .samples import empty_output, expected_output, flat_inputs, mismatch, sample_inputs
from .stopwatch import Stopwatch
from .threads import use_threads
from .tvm_any import tvm

_MAX_COPIES = 256
_LEAST_COPIES = 4  # a network's other kernels have about as many weights: those of a large kernel come from beyond the last cache


def flat_tensors(workload: Workload, candidate: Candidate, flat: list[np.ndarray]) -> tuple[list[Any], Any]:
    """Inputs and a zeroed output on the device, in the shapes that the candidate's kernel takes."""
    arguments: list[Any] = []
    for given, array in zip(workload.inputs, flat, strict=True):
        shape = lower.buffer_shape(given, candidate)
        arguments.append(tvm.runtime.tensor(array if shape is None else array.reshape(shape)))
    shape = lower.buffer_shape(workload.output, candidate)
    zeros = empty_output(workload)
    return arguments, tvm.runtime.tensor(zeros if shape is None else zeros.reshape(shape))


class Worker:
    """Holds the stopwatch, and torch's answer for the workload of the latest requests."""

    def __init__(self, target: Target, cold_bytes: int) -> None:
        self._target = target
        self._cold_bytes = cold_bytes
        self._stopwatch = Stopwatch(target)
        self._key = ""
        self._arrays: tuple[np.ndarray, ...] = ()
        self._expected = np.zeros(0)

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reply to one request: {"rejected": reason} or the timing in seconds."""
        workload = workload_from_json(request["workload"])
        candidate = candidate_from_json(request["candidate"])
        least = lower.multiplications(workload, candidate) / (self._stopwatch.peak * self._target.threads)
        if least > request["give_up_above"]:
            return {"rejected": f"takes {least * 1e3:.3f} ms at the machine's peak"}
        self._prepare(workload, request["workload"])

        def pack(index: int, array: np.ndarray) -> np.ndarray:
            return lower.pack(workload, candidate, self._target, index, array)

        module = self._build(workload, candidate)
        if isinstance(module, str):
            return {"rejected": module}
        kernel = module[lower.KERNEL]
        arguments, output = flat_tensors(workload, candidate, flat_inputs(workload, self._arrays, pack))
        kernel(*arguments, output)
        reason = mismatch(workload, output.numpy().reshape(-1), self._expected, lower.tolerance(candidate))
        if reason:
            return {"rejected": reason}
        sets = self._argument_sets(workload, arguments, output)
        timing = self._stopwatch.time(kernel, sets, request["budget"], request["give_up_above"])
        return {"low": timing.low, "seconds": timing.seconds, "high": timing.high, "quiet": timing.quiet}

    def _prepare(self, workload: Workload, key: str) -> None:
        if key != self._key:
            self._arrays = sample_inputs(workload)
            self._expected = expected_output(workload, self._arrays)
            self._key = key

    def _build(self, workload: Workload, candidate: Candidate) -> Any:
        """The built module, or why TVM refuses the candidate."""
        try:
            return lower.compile_kernel(workload, candidate, self._target)
        except (MeasureError, ValueError, TypeError, RuntimeError) as error:  # TVM's errors are subclasses of these
            return f"does not build: {str(error).strip().splitlines()[-1]}"

    def _argument_sets(self, workload: Workload, arguments: list[Any], output: Any) -> list[list[Any]]:
        """Copies of the parameters that together exceed the caches: in a network a kernel finds its weights cold."""
        parameters = [i for i, role in enumerate(workload.roles) if role == "parameter"]
        size = sum(arguments[i].numpy().nbytes for i in parameters)
        copies = min(max(-(-self._cold_bytes // size), _LEAST_COPIES), _MAX_COPIES) if size else 1
        sets = [[*arguments, output]]
        for _ in range(copies - 1):
            fresh = {i: tvm.runtime.tensor(arguments[i].numpy()) for i in parameters}
            sets.append([fresh.get(i, a) for i, a in enumerate(arguments)] + [output])
        return sets


def _begin(options: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    target = Target(**options["target"])
    if target.threads > 1:
        use_threads(target.threads)
    elif options["core"] is not None:
        os.sched_setaffinity(0, {options["core"]})
    torch.set_num_threads(1)
    return Worker(target, options["cold_bytes"]).measure


def main() -> None:
    """Serve until standard input closes."""
    serve(_begin)


if __name__ == "__main__":
    main()
