"""Pools, linear layers, elementwise chains and layout changes equal torch."""

from dataclasses import replace

import pytest
from kernel_workloads import ZEN4, WorkloadBuilder, wrong

from billhook.codegen import lower
from billhook.ir.workload import Workload


def _max_pool(c: int, size: int, kernel: int, stride: int, padding: int, ceil: bool = False) -> Workload:
    b = WorkloadBuilder()
    x = b.tensor(2, c, size, size, blocked=True)
    b.call("aten.max_pool2d.default", x, (kernel, kernel), (stride, stride), (padding, padding), (1, 1), ceil)
    out = (size + 2 * padding - kernel + (stride - 1 if ceil else 0)) // stride + 1
    return b.finish(2, c, out, out, blocked=True)


def _average_pool(c: int, size: int, kernel: int, stride: int, padding: int, include: bool) -> Workload:
    b = WorkloadBuilder()
    x = b.tensor(1, c, size, size, blocked=True)
    b.call("aten.avg_pool2d.default", x, (kernel, kernel), (stride, stride), (padding, padding), True, include, None)
    out = -(-(size + 2 * padding - kernel) // stride) + 1
    out -= (out - 1) * stride >= size + padding
    return b.finish(1, c, out, out, blocked=True)


def _adaptive(c: int, size: int, out: int) -> Workload:
    b = WorkloadBuilder()
    b.call("aten.adaptive_avg_pool2d.default", b.tensor(1, c, size, size, blocked=True), (out, out))
    return b.finish(1, c, out, out, blocked=True)


def _mean(c: int, keep: bool) -> Workload:
    b = WorkloadBuilder()
    b.call("aten.mean.dim", b.tensor(2, c, 5, 6, blocked=True), (-1, -2), keep, dtype=None)
    return b.finish(2, c, 1, 1, blocked=True) if keep else b.finish(2, c)


def _linear(rows: tuple[int, ...], depth: int, width: int, *ops: str) -> Workload:
    b = WorkloadBuilder()
    x, weight, bias = b.tensor(*rows, depth), b.parameter(width, depth), b.parameter(width)
    other = b.tensor(*rows, width)
    y = b.call("aten.linear.default", x, weight, bias)
    y = b.call("aten.add.Tensor", y, other, alpha=0.5)
    for op in ops:
        y = b.call(f"aten.{op}.default", y)
    return b.finish(*rows, width)


def _squeeze_excite(c: int) -> Workload:
    b = WorkloadBuilder()
    x, scale, shift = b.tensor(2, c, 5, 7, blocked=True), b.tensor(2, c, 1, 1, blocked=True), b.parameter(c, 1, 1)
    y = b.call("aten.mul.Tensor", x, scale)
    y = b.call("aten.add.Tensor", y, shift, alpha=1)
    b.call("aten.leaky_relu.default", y, 0.1)
    return b.finish(2, c, 5, 7, blocked=True)


def _plain_chain(rows: int = 3) -> Workload:
    b = WorkloadBuilder()
    x, scale = b.tensor(rows, 5, 21), b.parameter(21)
    y = b.call("aten.mul.Tensor", x, scale)
    y = b.call("aten.add.Tensor", y, x, alpha=2)
    b.call("aten.elu.default", y, 1.0, 1.0, 1.0)
    return b.finish(rows, 5, 21)


def _batch_norm(c: int) -> Workload:
    b = WorkloadBuilder()
    x, vectors = b.tensor(1, c, 4, 6, blocked=True), [b.parameter(c) for _ in range(4)]
    y = b.call("aten.batch_norm.default", x, *vectors, False, 0.1, 1e-5, False)
    b.call("aten.relu.default", y)
    return b.finish(1, c, 4, 6, blocked=True)


def _layout(c: int, inward: bool) -> Workload:
    b = WorkloadBuilder()
    b.call("billhook.layout", b.tensor(2, c, 5, 7, blocked=not inward))
    return b.finish(2, c, 5, 7, blocked=inward)


def _cat(blocked: bool, *widths: int) -> Workload:
    b = WorkloadBuilder()
    b.call("aten.cat.default", tuple(b.tensor(2, c, 3, 5, blocked=blocked) for c in widths), 1)
    return b.finish(2, sum(widths), 3, 5, blocked=blocked)


def _flatten(c: int, size: int) -> Workload:
    b = WorkloadBuilder()
    b.call("aten.flatten.using_ints", b.tensor(2, c, size, size, blocked=True), 1, -1)
    return b.finish(2, c * size * size)


CASES = {
    "max-pool": _max_pool(24, 15, 3, 2, 1),
    "max-pool-2x2": _max_pool(64, 8, 2, 2, 0),
    "max-pool-ceil": _max_pool(16, 12, 3, 2, 0, ceil=True),
    "average-pool-included": _average_pool(40, 9, 3, 2, 1, True),
    "average-pool-excluded": _average_pool(40, 10, 3, 2, 1, False),
    "adaptive-1": _adaptive(61, 7, 1),
    "adaptive-even": _adaptive(32, 14, 7),
    "adaptive-uneven": _adaptive(32, 11, 6),
    "mean": _mean(61, False),
    "mean-keep": _mean(48, True),
    "linear": _linear((5, 7), 40, 72, "relu"),
    "linear-tail": _linear((2,), 61, 10),
    "linear-row": _linear((1,), 256, 1000, "gelu"),
    "linear-rows": _linear((1, 50), 96, 64, "silu"),
    "squeeze-excite": _squeeze_excite(40),
    "plain-chain": _plain_chain(),
    "batch-norm": _batch_norm(56),
    "to-blocked": _layout(61, True),
    "to-plain": _layout(61, False),
    "to-plain-whole": _layout(64, False),
    "cat-aligned": _cat(True, 32, 16, 32),
    "cat-unaligned": _cat(True, 12, 24, 61),
    "cat-plain": _cat(False, 3, 4),
    "flatten": _flatten(61, 1),
    "flatten-map": _flatten(24, 3),
}


def test_linear_layers_and_chains_of_several_threads_equal_torch() -> None:
    target = replace(ZEN4, threads=2)
    large = [_linear((64,), 96, 200, "relu"), CASES["squeeze-excite"], CASES["mean"], _plain_chain(300)]
    assert [(c, w) for k in large for c in lower.candidates(k, target) if (w := wrong(k, c, target))] == []


@pytest.mark.parametrize("workload", CASES.values(), ids=CASES.keys())
def test_every_candidate_equals_torch(workload: Workload) -> None:
    candidates = lower.candidates(workload, ZEN4)
    assert candidates
    assert [(c, w) for c in candidates if (w := wrong(workload, c))] == []
