"""Operators without a template run through TVM's own lowering, and its importer errors are worked around."""

import pytest
from kernel_workloads import ZEN4, WorkloadBuilder, wrong

from billhook.codegen import generic, importer, lower
from billhook.codegen.importer import import_workload
from billhook.ir.errors import MeasureError
from billhook.ir.grouped_matmul import NAME as GROUPED
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


def _one_hot() -> Workload:
    """Numbers that are data would be checked; here they are places, so that none is out of range."""
    b = WorkloadBuilder()
    places = b.call("aten.argmax.default", b.tensor(5, 4), 1, False)
    table = b.call("aten.one_hot.default", places, 4)
    b.call("aten.to.dtype", table, "torch.float32", False, False, None)
    return b.finish(5, 4)


def _written(op: str) -> Workload:
    """The two largest of every row, written or added to some columns of a wider tensor, with pointwise calls before and behind."""
    b = WorkloadBuilder()
    x, y = b.tensor(6, 8), b.tensor(7, 8)
    order = b.call("aten.argsort.default", x, -1, True)
    places = b.call("aten.slice.Tensor", order, 1, 0, 2, 1)
    given = 0.5 if op.endswith("value") else b.call("aten.relu.default", x)
    wide = b.call("aten.neg.default", y)
    z = b.call(f"aten.{op}", wide, 1, places, given)
    b.call("aten.exp.default", z)
    return b.finish(7, 8)


def _counted(bins: int, low: int, high: int) -> Workload:
    b = WorkloadBuilder()
    places = b.call("aten.argmax.default", b.tensor(9, 4), 1, False)
    numbers = b.call("aten.to.dtype", places, "torch.float32", False, False, None)
    b.call("aten.histc.default", numbers, bins, low, high)
    return b.finish(bins)


def _clamped(low: int | None, high: int | None) -> Workload:
    b = WorkloadBuilder()
    places = b.call("aten.argsort.default", b.tensor(3, 8), -1, False)
    b.call("aten.clamp.default", places, low, high)
    return b.finish(3, 8, dtype="int64")


def _divided(mode: str) -> Workload:
    b = WorkloadBuilder()
    places = b.call("aten.argsort.default", b.tensor(3, 8), -1, False)
    below = b.call("aten.sub.Tensor", places, 4, alpha=1)
    b.call("aten.div.Tensor_mode", below, 3, rounding_mode=mode)
    return b.finish(3, 8, dtype="int64")


def _sampled(interpolation: int, padding: int, aligned: bool) -> Workload:
    """An image of three channels at places of which many are outside it."""
    b = WorkloadBuilder()
    b.call("aten.grid_sampler.default", b.tensor(2, 3, 5, 7), b.tensor(2, 4, 6, 2), interpolation, padding, aligned)
    return b.finish(2, 3, 4, 6)


def _grouped_rows(behind: int) -> Workload:
    """Rows sorted into groups of data-dependent size; some rows may be behind the last."""
    b = WorkloadBuilder()
    x, weight, scores = b.tensor(10, 6), b.parameter(4, 6, 5), b.tensor(10 - behind, 4)
    group = b.call("aten.argmax.default", scores, 1, False)
    numbers = b.call("aten.to.dtype", group, "torch.float32", False, False, None)
    counts = b.call("aten.histc.default", numbers, 4, 0, 3)
    ends = b.call("aten.cumsum.default", counts, 0, dtype="torch.int32")
    b.call(GROUPED, x, weight, ends)
    return b.finish(10, 5)


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
    "one-hot": _one_hot(),
    "written": _written("scatter.src"),
    "written-value": _written("scatter.value"),
    "written-sum": _written("scatter_add.default"),
    "counted": _counted(4, 0, 3),
    "counted-outside": _counted(2, 1, 2),
    "clamped": _clamped(2, 5),
    "clamped-above": _clamped(None, 4),
    "clamped-below": _clamped(3, None),
    "divided-down": _divided("floor"),
    "divided-towards-zero": _divided("trunc"),
    "sampled": _sampled(0, 0, True),
    "sampled-at-borders": _sampled(0, 1, False),
    "sampled-nearest": _sampled(1, 0, False),
    "grouped-rows": _grouped_rows(behind=0),
    "grouped-rows-behind": _grouped_rows(behind=3),
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


def test_what_tvm_cannot_fuse_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = CASES["written-value"]
    names = ("scatter.value",)
    monkeypatch.setattr(importer, "OPERATORS", {n: c for n, c in importer.OPERATORS.items() if n not in names})
    with pytest.raises(MeasureError, match=r"TVM cannot make a kernel of aten.argsort.default and what is around it: \S") as caught:
        generic.unscheduled.__wrapped__(workload, ZEN4)
    assert "\n" not in str(caught.value)
