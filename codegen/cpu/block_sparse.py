"""Linear layers and convolutions with block column sparsity: only the kept columns are multiplied.

Every block of output channels has its own list of columns. Their weights are packed next to each other, and where each finds its data, as a
distance from the pixel's first element, lies behind the weights in the same buffer (int32 in the bits of float32). A map with padding is
first copied into one with a border of zeros: then a column is one distance for all pixels, and no tap needs a test.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.block_sparse import CONV, LINEAR, BlockPattern, kept_columns
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import epilogue
from .candidate import Candidate, candidate
from .conv import conv_of
from .linear import linear_of
from .packing import input_sizes, pack_parameter
from .tiles import fits, vector_groups
from .vector import accumulate, bind, each, flat_kernel, load, loop, register, sharing, splat, store, store_partial
from .window import Conv

NAME = "block_sparse"
_DENSE = {LINEAR: "aten.linear.default", CONV: "aten.conv2d.default"}


@dataclass(frozen=True, slots=True)
class Product:
    """A sparse product: outputs x columns, at positions (batch, rows, columns of a map; a linear layer is a map of one row).

    distances: of each column's element from the first one of a position. step_y, step_x: from one position to the next.
    """

    pattern: BlockPattern
    outputs: int
    batch: int
    height: int
    width: int
    step_y: int
    step_x: int
    weight: int
    bias: int | None
    conv: Conv | None

    @property
    def blocks(self) -> int:
        return -(-self.outputs // self.pattern.rows)


def dense_form(workload: Workload) -> Workload:
    """The workload with the dense operator in place of the sparse one."""
    call = workload.anchor
    return replace(workload, calls=(replace(call, op=_DENSE[call.op], args=call.args[:-3]), *workload.calls[1:]))


def product_of(workload: Workload) -> Product | None:
    """The anchor as a sparse product, or None."""
    if workload.anchor.op not in _DENSE:
        return None
    pattern = BlockPattern(*(int(n) for n in workload.anchor.args[-3:] if isinstance(n, int)))
    if workload.anchor.op == LINEAR:
        layer = linear_of(dense_form(workload))
        if layer is None:
            return None
        return Product(pattern, layer.width, 1, 1, layer.rows, 0, layer.depth, layer.weight, layer.bias, None)
    conv = conv_of(dense_form(workload))
    if conv is None or conv.groups != 1 or not workload.output.block:
        return None
    pitch, block = _padded_width(conv), conv.source.block
    steps = conv.rows.stride * pitch * block, conv.columns.stride * block
    goal = conv.target
    return Product(pattern, goal.channels, goal.batch, goal.height, goal.width, *steps, conv.weight, conv.bias, conv)


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """A tile for each number of vectors that a block's rows can be cut into, the largest tiles first."""
    product = product_of(workload)
    if product is None or not product.height * product.width or not epilogue.fusible(workload, 1):
        return ()
    lanes = workload.output.block or target.lanes
    in_block, rest = divmod(product.pattern.rows, lanes)
    if rest or (product.conv is None and product.outputs % lanes):
        return ()
    vectors = min(in_block, -(-product.outputs // lanes))
    found: list[Candidate] = []
    for wide in (w for w in (4, 2, 3, 1, 8) if w <= vectors and in_block % w == 0):
        most = max((p for p in range(1, target.registers) if fits(p, wide, target.registers)), default=1)
        columns = _even(product.width, most)
        rows = _even(product.height, most // columns) if columns == product.width else 1
        found.append(candidate(NAME, rows=rows, columns=columns, vectors=wide))
    return tuple(found[:3])


def _even(size: int, limit: int) -> int:
    """The tile that cuts `size` into equal parts of at most `limit`."""
    return -(-size // -(-size // max(limit, 1)))


def multiplications(workload: Workload, _choice: Candidate) -> int:
    """Multiply-adds, with whole vectors where the output has them."""
    product = product_of(workload)
    assert product is not None
    lanes = workload.output.block or 1
    return product.batch * product.height * product.width * -(-product.outputs // lanes) * lanes * product.pattern.kept


def pack(workload: Workload, choice: Candidate, target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """The weight as [block][group of vectors][kept column][vector][lane], then the distances [block][kept column] as int32 bits."""
    product = product_of(workload)
    assert product is not None
    if index != product.weight:
        return pack_parameter(workload, index, array)
    lanes = workload.output.block or target.lanes
    columns = kept_columns(array, product.pattern)
    matrix = np.zeros((-(-product.outputs // lanes) * lanes, int(np.prod(array.shape[1:]))), np.float32)
    matrix[: len(array)] = array.reshape(len(array), -1)
    parts: list[np.ndarray] = []
    for block, kept in enumerate(columns):
        rows = matrix[block * product.pattern.rows : (block + 1) * product.pattern.rows, kept]
        first = 0
        for wide, times in vector_groups(len(rows) // lanes, choice["vectors"]):
            count = wide * times * lanes
            parts.append(rows[first : first + count].reshape(times, wide * lanes, -1).transpose(0, 2, 1).reshape(-1))
            first += count
    return np.concatenate([*parts, distances(product)[columns].astype(np.int32).reshape(-1).view(np.float32)])


def distances(product: Product) -> np.ndarray:
    """For every column of the weight matrix, how far its element lies behind the first one of a position."""
    if product.conv is None:
        return np.arange(product.step_x)
    conv = product.conv
    channel, row, column = np.indices((conv.source.channels, conv.rows.window, conv.columns.window)).reshape(3, -1)
    block, pitch = conv.source.block, _padded_width(conv)
    plane = channel // block * _padded_height(conv) + row * conv.rows.dilation
    return (plane * pitch + column * conv.columns.dilation) * block + channel % block


def _padded_width(conv: Conv) -> int:
    return conv.source.width + 2 * conv.columns.padding


def _padded_height(conv: Conv) -> int:
    return conv.source.height + 2 * conv.rows.padding


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    product = product_of(workload)
    assert product is not None
    lanes = workload.output.block or target.lanes
    vectors = -(-product.outputs // lanes)
    weights = vectors * lanes * product.pattern.kept
    sizes = input_sizes(workload, {product.weight: weights + product.blocks * product.pattern.kept})

    def body(one: Any, *buffers: Any) -> None:
        _Emitter(workload, product, choice, lanes, target.threads, buffers, one).emit()

    return flat_kernel([*sizes, workload.output.elements], body, opaque=product.weight)


class _Emitter:
    """Emits one sparse product into the current TIR builder."""

    def __init__(
        self, workload: Workload, product: Product, choice: Candidate, lanes: int, threads: int, buffers: Sequence[Any], one: Any
    ) -> None:
        self.workload, self.product, self.choice, self.lanes, self.buffers, self.one = workload, product, choice, lanes, buffers, one
        self.vectors = -(-product.outputs // lanes)
        self.in_block = product.pattern.rows // lanes
        self.threads = sharing(threads, multiplications(workload, choice))

    def emit(self) -> None:
        product, conv = self.product, self.product.conv
        full, rest = divmod(self.vectors, self.in_block)
        with loop(0, product.batch) as n:
            data, start = self.buffers[0], 0
            if conv is not None:
                start = n * (conv.source.elements // conv.source.batch)
                if conv.rows.padding or conv.columns.padding:
                    data, start = self._bordered(conv, start), 0
            if full:
                with each(full, self.threads) as block:
                    self._block(data, start, n, block, self.in_block)
            if rest:
                self._block(data, start, n, full, rest)

    def _bordered(self, conv: Conv, start: Any) -> Any:
        """A copy of one sample's map with a border of zeros."""
        source, (top, left) = conv.source, (conv.rows.padding, conv.columns.padding)
        height, width, lanes = _padded_height(conv), _padded_width(conv), conv.source.block
        copy = T.alloc_buffer((source.blocks * height * width * lanes,), "float32")
        zero = splat(0.0, lanes) if lanes > 1 else T.float32(0)
        with each(source.blocks, self.threads) as c:
            for rows in ((0, top), (height - top, height)):
                if rows[0] < rows[1]:
                    with loop(*rows) as y, loop(0, width) as x:
                        store(copy, ((c * height + y) * width + x) * lanes, zero, lanes)
            with loop(0, source.height) as y:
                line = (c * height + y + top) * width
                for x in (*range(left), *range(width - left, width)):
                    store(copy, (line + x) * lanes, zero, lanes)
                with loop(0, source.width) as x:
                    element = start + ((c * source.height + y) * source.width + x) * lanes
                    store(copy, (line + left + x) * lanes, load(self.buffers[0], element, lanes), lanes)
        return copy

    def _block(self, data: Any, start: Any, n: Any, block: Any, vectors: int) -> None:
        """All positions for the `vectors` vectors of one block of output channels."""
        kept, first = self.product.pattern.kept, 0
        base = block * (self.in_block * self.lanes * kept)
        for wide, times in vector_groups(vectors, self.choice["vectors"]):
            with loop(0, times) as group:
                vector = block * self.in_block + first + group * wide
                weights = base + (first + group * wide) * self.lanes * kept
                for tall, y, broad, x in self._tiles():
                    origin = start + y * self.product.step_y + x * self.product.step_x
                    self._tile(data, origin, (n, y, x), (tall, broad, wide), (block, vector, weights))
            first += wide * times

    def _tiles(self) -> Iterator[tuple[int, Any, int, Any]]:
        """Inside loops over tiles: rows, first row, columns, first column."""
        y0 = 0
        for tall, down in vector_groups(self.product.height, self.choice["rows"]):
            with loop(0, down) as i:
                x0 = 0
                for broad, across in vector_groups(self.product.width, self.choice["columns"]):
                    with loop(0, across) as j:
                        yield tall, y0 + i * tall, broad, x0 + j * broad
                    x0 += broad * across
            y0 += tall * down

    def _tile(self, data: Any, origin: Any, at: tuple[Any, Any, Any], size: tuple[int, int, int], of: tuple[Any, Any, Any]) -> None:
        (tall, broad, wide), (block, vector, weights) = size, of
        product, lanes, weight = self.product, self.lanes, self.buffers[self.product.weight]
        kept, start = product.pattern.kept, [None] * wide
        if product.bias is not None:
            start = [bind(load(self.buffers[product.bias], (vector + k) * lanes, lanes)) for k in range(wide)]
        pixels = [(i, j) for i in range(tall) for j in range(broad)]
        sums = [[register(lanes, s) for s in start] for _ in pixels]
        listed = self.vectors * lanes * kept + block * kept
        with loop(0, kept - 1 + self.one) as c:
            place = bind(origin + T.reinterpret("int32", load(weight, listed + c, 1)))
            columns = [bind(load(weight, weights + (c * wide + k) * lanes, lanes)) for k in range(wide)]
            for (i, j), row in zip(pixels, sums, strict=True):
                value = bind(splat(load(data, place + (i * product.step_y + j * product.step_x), 1), lanes))
                for k in range(wide):
                    accumulate(row[k], value * columns[k], lanes)
        for (i, j), row in zip(pixels, sums, strict=True):
            for k in range(wide):
                self._finish(row[k], (at[0], at[1] + i, at[2] + j), vector + k)

    def _finish(self, accumulator: Any, at: tuple[Any, Any, Any], vector: Any) -> None:
        (n, y, x), product, lanes = at, self.product, self.lanes
        anchors = {len(self.workload.inputs): load(accumulator, 0, lanes)}
        if product.conv is not None:
            goal = product.conv.target
            element = (((n * goal.blocks + vector) * goal.height + y) * goal.width + x) * lanes
            place = epilogue.Place(lanes, element, vector * lanes, (n * goal.blocks + vector) * lanes)
            store(self.buffers[-1], element, epilogue.apply(self.workload, 1, anchors, self.buffers, place), lanes)
            return
        element = x * product.outputs + vector * lanes
        place = epilogue.Place(lanes, element, vector * lanes)
        store_partial(self.buffers[-1], element, epilogue.apply(self.workload, 1, anchors, self.buffers, place), lanes, lanes)
