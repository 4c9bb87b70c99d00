"""Work of a kernel, from its workload alone: nominal operations and bytes."""

import math
from typing import cast

import torch

from billhook.ir.block_sparse import CONV, LINEAR
from billhook.ir.grids import QUINT8
from billhook.ir.grouped_matmul import NAME as GROUPED
from billhook.ir.reference import run_calls
from billhook.ir.workload import Arg, Call, Ref, Workload

from .operators import MOVES

_LAYOUT = "billhook.layout"
_HEAVY = (
    *("aten.conv", "aten.linear", "aten.matmul", "aten.bmm", "aten.mm", "aten.addmm", "aten.scaled_dot_product"),
    *(CONV, LINEAR, GROUPED),
)


def kernel_flops(workload: Workload) -> int:
    """Nominal operations: a multiply-add counts 2 (padding taps included), any other operator one per element, a move none."""
    if _known(workload, workload.anchor) and all(_is_light(c) for c in workload.calls[1:]):
        output = math.prod(workload.output.shape)
        shapes: list[tuple[int, ...]] = [t.shape for t in workload.inputs] + [workload.output.shape] * len(workload.calls)
        return _operations(workload.anchor, shapes, output) + output * sum(not _is_move(c) for c in workload.calls[1:])
    values = run_calls(workload.calls, [torch.empty(t.shape, dtype=_computed(t.dtype), device="meta") for t in workload.inputs])
    shapes = [tuple(v.shape) for v in values]
    results = shapes[len(workload.inputs) :]
    return sum(_operations(call, shapes, math.prod(result)) for call, result in zip(workload.calls, results, strict=True))


def kernel_bytes(workload: Workload) -> int:
    """Bytes that the kernel has to move at least: every input once, and the output; padding lanes included."""
    return sum(getattr(torch, t.dtype).itemsize * t.elements for t in (*workload.inputs, workload.output))


def weight_bytes(workload: Workload) -> int:
    """Bytes of the kernel's parameters, padding lanes included: inputs that are no activations."""
    pairs = zip(workload.inputs, workload.roles, strict=True)
    return sum(getattr(torch, t.dtype).itemsize * t.elements for t, role in pairs if role != "activation")


def _computed(dtype: str) -> torch.dtype:
    """What calls compute on: real numbers, where a value is stored as bytes on a grid."""
    return torch.float32 if dtype == QUINT8 else getattr(torch, dtype)


def _is_move(call: Call) -> bool:
    return call.op == _LAYOUT or call.op.rpartition(".")[0] in MOVES


def _is_light(call: Call) -> bool:
    """Whether a call costs its result's elements only."""
    return not call.op.startswith(_HEAVY)


def _known(workload: Workload, call: Call) -> bool:
    """Whether all operands of a call are inputs of the workload."""
    return all(a.index < len(workload.inputs) for a in call.args if isinstance(a, Ref)) and not any(
        isinstance(a, tuple) and _refs(a) for a in call.args
    )


def _refs(arg: Arg) -> list[Ref]:
    if isinstance(arg, Ref):
        return [arg]
    return [r for a in arg for r in _refs(a)] if isinstance(arg, tuple) else []


def _operations(call: Call, shapes: list[tuple[int, ...]], output: int) -> int:
    """Operations of one call whose operands have the given shapes and whose result has `output` elements."""
    operands = [shapes[r.index] for a in call.args for r in _refs(a)]
    name = call.op.split(".")[1]
    if _is_move(call) or not operands:
        return 0
    if call.op in (CONV, LINEAR):
        return 2 * output * cast("int", call.args[-2])  # the columns that are kept
    if name.startswith("conv"):
        return 2 * output * math.prod(operands[1][1:])
    if name == "linear":
        return 2 * output * operands[1][-1]
    if name in {"matmul", "bmm", "mm"} or call.op == GROUPED:
        return 2 * output * operands[0][-1]
    if name in {"addmm", "baddbmm"}:
        return 2 * output * operands[1][-1]
    if name == "scaled_dot_product_attention":
        query, key, value = operands[:3]
        return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return max(output, *(math.prod(s) for s in operands))
