"""Tuning for OpenCL: candidates are built, checked against torch and timed in a process of their own, under a timeout."""

from dataclasses import asdict

from billhook.codegen.timer import ChildTimer
from billhook.ir.latency import Provenance
from billhook.ir.target import Target


class OpenClTimer(ChildTimer):
    """Times kernels on this machine's OpenCL device.

    budget: seconds of timing per candidate; timeout: seconds for building, checking and timing one, after which it is rejected;
    provenance: "device" for a GPU, "host" for OpenCL on the processor.
    """

    def __init__(self, target: Target, provenance: Provenance, *, budget: float = 0.05, timeout: float = 90.0) -> None:
        module, called = "billhook.codegen.opencl.worker", "the process that tries OpenCL kernels"
        super().__init__(module, {"target": asdict(target)}, called, budget=budget, timeout=timeout, provenance=provenance)
