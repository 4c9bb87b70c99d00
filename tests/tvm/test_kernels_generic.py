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


def _reduced(op: str, dims: tuple[int, ...], *shape: int, keep: bool = False) -> Workload:
    b = WorkloadBuilder()
    b.call(f"aten.{op}.default", b.tensor(3, 5, 7), dims, keep)
    return b.finish(*shape)


def _running(op: str, dim: int) -> Workload:
    b = WorkloadBuilder()
    b.call(f"aten.{op}.default", b.tensor(3, 5, 7), dim, dtype=None)
    return b.finish(3, 5, 7)


def _sorted(dim: int, descending: bool) -> Workload:
    """Values in order, gathered at the places that an argsort gives."""
    b = WorkloadBuilder()
    x = b.tensor(4, 9, 3)
    places = b.call("aten.argsort.default", x, dim, descending)
    b.call("aten.gather.default", x, dim, places)
    return b.finish(4, 9, 3)


def _places() -> Workload:
    """The places of the largest two of every row."""
    b = WorkloadBuilder()
    places = b.call("aten.argsort.default", b.tensor(6, 8), -1, True)
    b.call("aten.slice.Tensor", places, 1, 0, 2, 1)
    return b.finish(6, 2, dtype="int64")


def _indexed(apart: bool) -> Workload:
    """Indices of two dimensions, some of them negative, that broadcast; side by side, or apart."""
    b = WorkloadBuilder()
    x, first, second = b.tensor(4, 5, 6), b.tensor(4, 3), b.tensor(3)
    rows = b.call("aten.slice.Tensor", b.call("aten.argsort.default", first, 0, False), 1, 0, 1, 1)
    columns = b.call("aten.sub.Tensor", b.call("aten.argsort.default", second, 0, False), 3, alpha=1)
    b.call("aten.index.Tensor", x, (rows, None, columns) if apart else (None, rows, columns))
    return b.finish(*((4, 3, 5) if apart else (4, 4, 3)))


def _unfolded() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.im2col.default", b.tensor(2, 3, 6, 7), (3, 2), (1, 1), (1, 0), (2, 1))
    return b.finish(2, 18, 18)


def _folded() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.col2im.default", b.tensor(2, 18, 18), (6, 7), (3, 2), (1, 1), (1, 0), (2, 1))
    return b.finish(2, 3, 6, 7)


def _windows() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.unfold.default", b.tensor(3, 9, 4), 1, 3, 2)
    return b.finish(3, 4, 4, 3)


def _bare_group_norm() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.group_norm.default", b.tensor(2, 6, 7), 3, b.parameter(6), None, 1e-5, True)
    return b.finish(2, 6, 7)


def _scattered() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.slice_scatter.default", b.tensor(4, 9), b.tensor(4, 3), 1, 2, 8, 2)
    return b.finish(4, 9)


CASES = {
    "attention": _attention(False),
    "causal": _attention(True),
    "layer-norm": _layer_norm(),
    "negative-select": _negative_select(),
    "masked-fill": _masked_fill(),
    "grouped": _grouped(),
    "largest": _reduced("amax", (1,), 3, 7),
    "smallest": _reduced("amin", (0, -1), 1, 5, 1, keep=True),
    "largest-of-all": _reduced("amax", ()),
    "running-sum": _running("cumsum", -1),
    "running-product": _running("cumprod", 1),
    "sorted": _sorted(1, descending=False),
    "sorted-downwards": _sorted(-1, descending=True),
    "places": _places(),
    "indexed": _indexed(apart=False),
    "indexed-apart": _indexed(apart=True),
    "unfolded": _unfolded(),
    "scattered": _scattered(),
    "windows": _windows(),
    "folded": _folded(),
    "bare-group-norm": _bare_group_norm(),
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
