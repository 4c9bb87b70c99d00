"""Workloads for kernel tests, and the check that a candidate computes what torch computes."""

from dataclasses import replace

import numpy as np

from billhook.codegen import lower, samples, worker
from billhook.codegen.cpu.candidate import Candidate
from billhook.ir.grids import QUINT8, with_grids
from billhook.ir.target import Target
from billhook.ir.workload import Arg, Call, Ref, Role, TensorType, Workload

ZEN4 = Target("llvm", "znver4", 16, 8, 32)
AVX2 = Target("llvm", "x86-64-v3", 8, 8, 16)


class WorkloadBuilder:
    """Collects inputs and calls; inputs must be added before calls."""

    def __init__(self, target: Target = ZEN4) -> None:
        self.target = target
        self.inputs: list[TensorType] = []
        self.roles: list[Role] = []
        self.calls: list[Call] = []

    def tensor(self, *shape: int, blocked: bool = False, dtype: str = "float32") -> Ref:
        block = self.target.channel_block(shape[1]) if blocked else 0
        self.inputs.append(TensorType(shape, dtype, block))
        self.roles.append("activation")
        return Ref(len(self.inputs) - 1)

    def parameter(self, *shape: int) -> Ref:
        self.inputs.append(TensorType(shape))
        self.roles.append("parameter")
        return Ref(len(self.inputs) - 1)

    def call(self, op: str, *args: Arg, **kwargs: Arg) -> Ref:
        self.calls.append(Call(op, args, tuple(kwargs.items())))
        return Ref(len(self.inputs) + len(self.calls) - 1)

    def finish(self, *shape: int, blocked: bool = False, dtype: str = "float32") -> Workload:
        block = self.target.channel_block(shape[1]) if blocked else 0
        return Workload(tuple(self.inputs), tuple(self.roles), tuple(self.calls), TensorType(shape, dtype, block))


def conv(
    source: tuple[int, int, int, int],
    out: int,
    kernel: int,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    epilogue: tuple[str, ...] = (),
    plain: bool = False,
    target: Target = ZEN4,
) -> Workload:
    """A convolution with bias; epilogue names: "residual" and unary ATen operators such as "relu"."""
    b = WorkloadBuilder(target)
    n, c, h, w = source
    pad = kernel // 2 if padding is None else padding
    height, width = ((size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for size in (h, w))
    x, weight, bias = b.tensor(*source, blocked=not plain), b.parameter(out, c // groups, kernel, kernel), b.parameter(out)
    other = b.tensor(n, out, height, width, blocked=True) if "residual" in epilogue else None
    y = b.call("aten.conv2d.default", x, weight, bias, (stride, stride), (pad, pad), (dilation, dilation), groups)
    for name in epilogue:
        y = b.call("aten.add.Tensor", y, other, alpha=1) if name == "residual" else b.call(f"aten.{name}.default", y)
    return b.finish(n, out, height, width, blocked=True)


def in_bfloat16(workload: Workload, *, inputs: bool = True, output: bool = True) -> Workload:
    """The workload with its activations, its output or both in bfloat16."""
    types = tuple(
        replace(t, dtype="bfloat16") if inputs and role == "activation" else t
        for t, role in zip(workload.inputs, workload.roles, strict=True)
    )
    return replace(workload, inputs=types, output=replace(workload.output, dtype="bfloat16") if output else workload.output)


def on_grids(workload: Workload, *, inputs: bool = True, output: bool = True) -> Workload:
    """The workload with its activations, its output or both as bytes on grids."""
    types = tuple(
        replace(t, dtype=QUINT8) if inputs and role == "activation" else t for t, role in zip(workload.inputs, workload.roles, strict=True)
    )
    return with_grids(replace(workload, inputs=types, output=replace(workload.output, dtype=QUINT8) if output else workload.output))


def wrong(workload: Workload, candidate: Candidate, target: Target = ZEN4) -> str | None:
    """Why the candidate's kernel differs from torch, or None."""
    arrays = samples.sample_inputs(workload)
    kernel = lower.compile_kernel(workload, candidate, target)[lower.KERNEL]
    flat = samples.flat_inputs(workload, arrays, lambda i, a: lower.pack(workload, candidate, target, i, a))
    arguments, output = worker.flat_tensors(workload, candidate, flat)
    unwritten = {"float32": np.nan, "uint16": 0x7FC0}.get(output.dtype, 255)  # NaN in both types
    output.copyfrom(np.full(output.shape, unwritten, output.dtype))
    kernel(*arguments, output)
    expected = samples.expected_output(workload, arrays)
    return samples.mismatch(workload, output.numpy().reshape(-1), expected, lower.tolerance(candidate))
