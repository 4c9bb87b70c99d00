"""Convolutions and linear maps written as matrix products, so that one GPU schedule serves both.

A convolution is the product of its weight matrix [channels out, taps] with the patches of its input [taps, pixels] (im2col). The patches
are an expression, not a buffer: the schedule computes each tile of them on its way into shared memory (an implicit GEMM). Rows, columns
and depth are padded with zeros up to whole tiles; the last step writes only what lies inside the tensor. Weights are transposed and
padded by a step of their own, which the build carries out once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from billhook.codegen.tvm_any import tvm

from .tile import Tile, round_up

GEMM = "gemm"  # the name of the block with the product; LEFT and RIGHT make its operands
LEFT, RIGHT = "left", "right"
TILE = "billhook.tile"  # annotation of the product's block
_FUSIBLE_BEHIND, _OPAQUE = 4, 8  # relax's pattern kinds: takes elementwise calls behind it; is fused with nothing
_FEW_ROWS = 8  # a product with fewer rows is a matrix-vector product: bound by memory, better made by TVM's rules
_FEWEST = 2  # with a single row or column the output's index is a constant, which would not tell the threads of a tile apart

Chooser = Callable[[int, int], Tile]


def legalisations(choose: Chooser) -> Mapping[str, Callable[[Any, Any], Any]]:
    """For relax's LegalizeOps: how ungrouped convolutions and products with a matrix become padded matrix products.

    choose: the tile for a product of this many rows and columns.
    """
    return {
        "relax.nn.conv2d": lambda builder, call: _conv2d(builder, call, choose),
        "relax.matmul": lambda builder, call: _matmul(builder, call, choose),
    }


def _conv2d(builder: Any, call: Any, choose: Chooser) -> Any:
    attrs = call.attrs
    if int(attrs.groups) != 1 or str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        return call.op.get_attr("FLegalize")(builder, call)
    data, weight = call.args
    shape = tuple(int(s) for s in weight.ty.shape)
    strides, padding, dilation = ([int(v) for v in given] for given in (attrs.strides, attrs.padding, attrs.dilation))
    geometry = _geometry([int(s) for s in data.ty.shape], shape, strides, padding, dilation)
    if min(shape[0], geometry.pixels) < _FEWEST:
        return call.op.get_attr("FLegalize")(builder, call)
    tile = choose(shape[0], geometry.pixels)
    packed = builder.emit(_emit(builder, partial(packed_weight, tile=tile), [weight], "pack", _OPAQUE))
    return _emit(builder, partial(implicit_gemm, g=geometry, tile=tile), [data, packed], "conv2d", _FUSIBLE_BEHIND)


def _matmul(builder: Any, call: Any, choose: Chooser) -> Any:
    left, right = (list(a.ty.shape) for a in call.args)
    rows = 1
    for size in left[:-1]:
        rows *= int(size)
    if len(right) != 2 or len(left) < 2 or rows < _FEW_ROWS or int(right[1]) < _FEWEST:
        return call.op.get_attr("FLegalize")(builder, call)
    tile = choose(rows, int(right[1]))
    return _emit(builder, partial(padded_product, tile=tile), list(call.args), "matmul", _FUSIBLE_BEHIND)


def _emit(builder: Any, compute: Callable[..., Any], args: list[Any], name: str, pattern: int) -> Any:
    return builder.call_te(compute, *args, primfunc_name_hint=name, primfunc_attrs={"op_pattern": pattern})


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution's extents: out channels, input map, taps, output map; strides, offsets and dilations along y and x."""

    outputs: int
    height: int
    width: int
    taps: int
    window_y: int
    window_x: int
    batch: int
    rows: int
    columns: int
    strides: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]
    bordered: tuple[bool, bool]  # whether a patch can leave the map along y and x

    @property
    def pixels(self) -> int:
        return self.batch * self.rows * self.columns


def _geometry(data: list[int], weight: tuple[int, ...], strides: list[int], padding: list[int], dilation: list[int]) -> Geometry:
    (batch, channels, height, width), (outputs, _, window_y, window_x) = data, weight
    top, left, bottom, right = padding
    rows = (height + top + bottom - dilation[0] * (window_y - 1) - 1) // strides[0] + 1
    columns = (width + left + right - dilation[1] * (window_x - 1) - 1) // strides[1] + 1
    return Geometry(
        outputs, height, width, channels * window_y * window_x, window_y, window_x, batch, rows, columns,
        (strides[0], strides[1]), (top, left), (dilation[0], dilation[1]), (bool(top or bottom), bool(left or right)),
    )  # fmt: skip


def packed_weight(weight: Any, tile: Tile) -> Any:
    """TE: [O, C, kh, kw] to the matrix [taps, O], both padded with zeros up to whole tiles."""
    outputs, channels, window_y, window_x = (int(s) for s in weight.shape)
    taps, zero = channels * window_y * window_x, tvm.tirx.const(0, weight.dtype)

    def element(k: Any, i: Any) -> Any:
        value = weight[i, k // (window_y * window_x), k // window_x % window_y, k % window_x]
        return _inside(value, zero, (k, taps, tile.depth), (i, outputs, tile.rows))

    return tvm.te.compute((round_up(taps, tile.depth), round_up(outputs, tile.rows)), element, name="pack")


def implicit_gemm(data: Any, weight: Any, g: Geometry, tile: Tile) -> Any:
    """TE: [N, C, H, W] and the packed weight to [N, O, out height, out width]."""
    zero = tvm.tirx.const(0, data.dtype)

    def patch_at(k: Any, j: Any) -> Any:
        y = j // g.columns % g.rows * g.strides[0] + k // g.window_x % g.window_y * g.dilation[0] - g.before[0]
        x = j % g.columns * g.strides[1] + k % g.window_x * g.dilation[1] - g.before[1]
        border = [y >= 0, y < g.height] if g.bordered[0] else []
        border += [x >= 0, x < g.width] if g.bordered[1] else []
        value = data[j // (g.rows * g.columns), k // (g.window_y * g.window_x), y, x]
        value = tvm.tirx.if_then_else(tvm.tirx.all(*border), value, zero) if border else value
        return _inside(value, zero, (k, g.taps, tile.depth), (j, g.pixels, tile.columns))

    def weight_at(k: Any, i: Any) -> Any:
        return weight[k, i]

    product = _product(weight_at, patch_at, (g.outputs, g.pixels, g.taps), tile)
    shape = (g.batch, g.outputs, g.rows, g.columns)

    def pixel_of(n: Any, o: Any, y: Any, x: Any) -> Any:
        return product[o, (n * g.rows + y) * g.columns + x]

    return tvm.te.compute(shape, pixel_of, name="scatter")


def padded_product(left: Any, right: Any, tile: Tile) -> Any:
    """TE: [..., M, K] and a matrix [K, N] to [..., M, N]; leading dimensions count as rows."""
    shape = [int(s) for s in left.shape]
    depth, columns = (int(s) for s in right.shape)
    rows, zero = 1, tvm.tirx.const(0, left.dtype)
    for size in shape[:-1]:
        rows *= size

    def left_at(k: Any, i: Any) -> Any:
        index: list[Any] = []
        rest = i
        for size in reversed(shape[1:-1]):
            index.insert(0, rest % size)
            rest = rest // size
        return _inside(left[(rest, *index, k)], zero, (k, depth, tile.depth), (i, rows, tile.rows))

    def right_at(k: Any, j: Any) -> Any:
        return _inside(right[k, j], zero, (k, depth, tile.depth), (j, columns, tile.columns))

    product = _product(left_at, right_at, (rows, columns, depth), tile)

    def write(*index: Any) -> Any:
        row: Any = 0
        for i, size in zip(index[:-1], shape[:-1], strict=True):
            row = row * size + i
        return product[row, index[-1]]

    return tvm.te.compute((*shape[:-1], columns), write, name="scatter")


def _product(left: Any, right: Any, sizes: tuple[int, int, int], tile: Tile) -> Any:
    """The product of left [depth, rows] (transposed) and right [depth, columns], padded."""
    te, (rows, columns, depth) = tvm.te, sizes
    rows, columns, depth = round_up(rows, tile.rows), round_up(columns, tile.columns), round_up(depth, tile.depth)
    a = te.compute((depth, rows), left, name=LEFT)
    b = te.compute((depth, columns), right, name=RIGHT)
    k = te.reduce_axis((0, depth), name="k")

    def element(i: Any, j: Any) -> Any:
        return te.sum(a[k, i] * b[k, j], axis=k)

    return te.compute((rows, columns), element, name=GEMM, attrs={TILE: str(tile)})


def _inside(value: Any, zero: Any, *limits: tuple[Any, int, int]) -> Any:
    """The value where every index is below its limit, else zero; limits that are multiples of the tile always hold."""
    needed = [index < limit for index, limit, multiple in limits if limit % multiple]
    return tvm.tirx.if_then_else(tvm.tirx.all(*needed), value, zero) if needed else value
