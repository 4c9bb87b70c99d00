"""The process that tries OpenCL kernels: builds, checks and times one candidate per request. Run as `python -m ... OPTIONS`.

A driver that crashes or hangs on a kernel takes only this process with it; timer.py starts another.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from billhook.codegen.child import serve
from billhook.codegen.cpu.candidate import candidate_from_json
from billhook.codegen.samples import expected_output, mismatch, sample_inputs
from billhook.ir.errors import DeviceError, MeasureError
from billhook.ir.network import Kernel, Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload, workload_from_json

from .build import build
from .session import Session

TOLERANCE = 1e-4  # largest error of a kernel against float64, relative to its largest output
_LEAST, _MOST = 5, 40  # timings of a kernel


class Worker:
    """Keeps torch's answer for the workload of the latest requests."""

    def __init__(self, target: Target) -> None:
        self._target, self._key = target, ""
        self._arrays: tuple[np.ndarray, ...] = ()
        self._expected = np.zeros(0)

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reply to one request: the timing in seconds, {"rejected": reason}, or {"gone": reason} where the device vanished."""
        workload = workload_from_json(request["workload"])
        if request["workload"] != self._key:
            self._arrays = sample_inputs(workload)
            self._expected = expected_output(workload, self._arrays)
            self._key = request["workload"]
        network, inputs = single_kernel(workload, self._arrays)
        try:
            session = Session(build(network, {workload: candidate_from_json(request["candidate"])}, self._target))
            found = session.run(*inputs)[0].numpy().reshape(-1)
            reason = mismatch(workload, found, self._expected, TOLERANCE)
            return {"rejected": reason} if reason else _timed(session, request["budget"], request["give_up_above"])
        except DeviceError as error:
            return {"gone": str(error)}
        except (MeasureError, ValueError, TypeError, RuntimeError) as error:  # TVM's errors are subclasses of these
            return {"rejected": f"does not build or run: {str(error).strip().splitlines()[-1]}"}


def single_kernel(workload: Workload, arrays: tuple[np.ndarray, ...]) -> tuple[Network, tuple[torch.Tensor, ...]]:
    """A network that computes the workload, with its parameters as constants, and the network's inputs."""
    names = [f"{'x' if role == 'activation' else 'w'}{i}" for i, role in enumerate(workload.roles)]
    named = list(zip(names, workload.inputs, map(torch.as_tensor, arrays), workload.roles, strict=True))
    network = Network(
        inputs=tuple((n, t) for n, t, _, role in named if role == "activation"),
        outputs=("y",),
        kernels=(Kernel("kernel", workload, tuple(names), "y"),),
        constants={n: value for n, _, value, role in named if role == "parameter"},
    )
    return network, tuple(value for _, _, value, role in named if role == "activation")


def _timed(session: Session, budget: float, give_up_above: float) -> dict[str, float]:
    """Seconds of all launches together, by the device's clock, sampled for about `budget` seconds."""
    samples: list[float] = []
    begun = time.perf_counter()
    while len(samples) < _MOST and (len(samples) < _LEAST or time.perf_counter() - begun < budget):
        samples.append(max(sum(session.time_once()), 1e-9))
        if len(samples) >= 3 and min(samples) > give_up_above:
            break
    ordered = sorted(samples)
    return {"low": ordered[0], "seconds": ordered[len(ordered) // 4], "high": ordered[3 * len(ordered) // 4]}


def _begin(options: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    torch.set_num_threads(1)
    return Worker(Target(**options["target"])).measure


def main() -> None:
    """Serve until standard input closes."""
    serve(_begin)


if __name__ == "__main__":
    main()
