"""Time per kernel inside a running network, through the VM's instrument hook."""

import time
from typing import Any

import numpy as np
import torch

from billhook.ir.latency import Latency

from .artifact import Artifact


def profile(artifact: Artifact, *tensors: torch.Tensor | np.ndarray, repeats: int = 20) -> tuple[tuple[str, Latency], ...]:
    """(kernel name, time) in execution order for a network from `build`, over `repeats` inferences.

    Time of the processor, or on the wall where an inference has several threads.
    """
    samples: list[list[float]] = [[] for _ in artifact.kernels]
    state = {"next": 0, "started": 0.0}
    clock = time.thread_time if artifact.threads == 1 else time.perf_counter

    def hook(_function: Any, name: str, before: bool, *_: Any) -> int:
        if name.startswith("vm.") or name == "main":
            return 0
        if before:
            state["started"] = clock()
        else:
            samples[int(state["next"])].append(clock() - state["started"])
            state["next"] += 1
        return 0

    inference = artifact.bind(*tensors)
    inference()
    artifact.machine.set_instrument(hook)
    try:
        for _ in range(repeats):
            state["next"] = 0
            inference()
    finally:
        artifact.machine.set_instrument(_no_hook)
    return tuple((name, _latency(sorted(times))) for name, times in zip(artifact.kernels, samples, strict=True))


def _no_hook(*_: Any) -> int:
    return 0


def _latency(ordered: list[float]) -> Latency:
    return Latency(ordered[len(ordered) // 4], ordered[0], ordered[3 * len(ordered) // 4], "host")
