"""Operators without a template run through TVM's own lowering, and its importer errors are worked around."""

import pytest
from kernel_workloads import ZEN4, WorkloadBuilder, wrong

from billhook.codegen import generic, lower
from billhook.codegen.importer import import_workload
from billhook.ir.errors import MeasureError
from billhook.ir.workload import TensorType, Workload


def _attention(causal: bool) -> Workload:
    b = WorkloadBuilder()
    q, k, v = (b.tensor(1, 2, 9, 16) for _ in range(3))
    b.call("aten.scaled_dot_product_attention.default", q, k, v, None, 0.0, causal)
    return b.finish(1, 2, 9, 16)


def _layer_norm() -> Workload:
    b = WorkloadBuilder()
    x, weight, bias, other = b.tensor(2, 7, 24), b.parameter(24), b.parameter(24), b.tensor(2, 7, 24)
    y = b.call("aten.layer_norm.default", x, (24,), weight, bias, 1e-5, False)
    b.call("aten.add.Tensor", y, other, alpha=1)
    return b.finish(2, 7, 24)


def _negative_select() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.select.int", b.tensor(2, 5, 8), 1, -1)
    return b.finish(2, 8)


def _masked_fill() -> Workload:
    b = WorkloadBuilder()
    x, mask = b.tensor(4, 6), b.tensor(4, 6, dtype="bool")
    y = b.call("aten.masked_fill.Scalar", x, mask, float("-inf"))
    b.call("aten.softmax.int", y, -1, None)
    return b.finish(4, 6)


def _grouped() -> Workload:
    b = WorkloadBuilder()
    x, weight, bias = b.tensor(1, 16, 6, 6), b.parameter(24, 4, 3, 3), b.parameter(24)
    y = b.call("aten.conv2d.default", x, weight, bias, (1, 1), (1, 1), (1, 1), 4)
    b.call("aten.relu.default", y)
    return b.finish(1, 24, 6, 6)


CASES = {
    "attention": _attention(False),
    "causal": _attention(True),
    "layer-norm": _layer_norm(),
    "negative-select": _negative_select(),
    "masked-fill": _masked_fill(),
    "grouped": _grouped(),
}


@pytest.mark.parametrize("workload", CASES.values(), ids=CASES.keys())
def test_equals_torch(workload: Workload) -> None:
    (candidate,) = generic.candidates(workload, ZEN4)
    assert wrong(workload, candidate) is None


def test_half_precision_is_refused_clearly() -> None:
    half = TensorType((2, 3), "float16")
    workload = Workload((half,), ("activation",), CASES["negative-select"].calls, half)
    with pytest.raises(MeasureError, match="use float32"):
        import_workload(workload)
    assert lower.candidates(workload, ZEN4) == ()
