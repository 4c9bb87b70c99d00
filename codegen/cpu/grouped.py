"""Grouped 2-D convolution between channel-blocked maps, where the lanes of a vector of outputs may belong to several groups.

A row of pixels times one output vector stays in registers. There are two ways to bring the inputs to the lanes. Shuffled: every lane
takes its own group's channels, by fixed permutations of whole input vectors, so nothing is multiplied in vain; the permutations repeat
after some vectors, and are unrolled. Spanned: all channels of the groups that a vector touches are spread over its lanes one by
one, times weights that are zero where a lane is another group's: best where a vector lies within one group.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import epilogue
from .candidate import Candidate, candidate
from .packing import input_sizes, pack_parameter
from .reduced import storages
from .segments import Segment, segments
from .vector import accumulate, bind, divide, each, flat_kernel, load, loop, register, sharing, splat, store
from .window import Conv, conv_of, taps_inside

NAME = "grouped"
_MOST_CODE = 4000  # multiply-adds that may be unrolled: more take TVM and LLVM many seconds


@dataclass(frozen=True, slots=True)
class Groups:
    """inputs, outputs: channels of a group. period: vectors after which the lanes' places repeat, which is `step` input blocks later."""

    conv: Conv
    inputs: int
    outputs: int
    period: int
    step: int

    @property
    def touched(self) -> int:
        """The most groups that one vector has lanes of."""
        lanes, vectors = self.conv.target.block, self.conv.target.blocks
        last = [min((v + 1) * lanes, self.conv.target.channels) - 1 for v in range(vectors)]
        return max(last[v] // self.outputs - v * lanes // self.outputs + 1 for v in range(vectors))

    @property
    def spanned(self) -> int:
        """Input channels of the groups that a vector touches."""
        return self.touched * self.inputs

    def channel(self, lane: int, step: int) -> int:
        """The input channel that lane `lane` of the first period's vectors takes in step `step`."""
        return min(lane // self.outputs, self.conv.groups - 1) * self.inputs + step

    def first(self, vector: Any) -> Any:
        """The first of the `spanned` input channels of a vector."""
        group, _ = divide(vector * self.conv.target.block, self.outputs)
        return T.min(group * self.inputs, self.conv.source.channels - self.spanned)


def groups_of(workload: Workload) -> Groups | None:
    """The anchor as a convolution of several groups between blocked maps that is not depthwise; None otherwise."""
    conv = conv_of(workload)
    if conv is None or conv.groups == 1 or not workload.output.block or not workload.inputs[conv.data].block:
        return None
    if conv.groups == conv.source.channels == conv.target.channels:
        return None
    inputs, outputs = conv.source.channels // conv.groups, conv.target.channels // conv.groups
    lanes, block = conv.target.block, conv.source.block
    whole = outputs // math.gcd(outputs, lanes)  # vectors until a group begins with a vector
    moved = whole * lanes // outputs * inputs
    period = min(whole * block // math.gcd(moved, block), conv.target.blocks)
    return Groups(conv, inputs, outputs, period, period * lanes // outputs * inputs // block)


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """A few tiles of both ways, or () if the workload is no such convolution."""
    groups = groups_of(workload)
    if groups is None or not epilogue.fusible(workload, 1):
        return ()
    columns = groups.conv.columns
    widths = dict.fromkeys(-(-columns.out // -(-columns.out // min(limit, columns.out))) for limit in (7, target.registers - 6, 4))
    fitting = [q for q in widths if q <= target.registers - 6]
    shuffled = [candidate(NAME, columns=q, shuffled=1) for q in fitting if groups.touched > 1 and _code(groups, q) <= _MOST_CODE]
    spanned = [candidate(NAME, columns=q, shuffled=0) for q in fitting]
    return tuple(shuffled) if shuffled and groups.touched > 2 else (*shuffled, *spanned)


def _code(groups: Groups, columns: int) -> int:
    """Multiply-adds in the code of the shuffled way."""
    rest = groups.conv.target.blocks % groups.period
    taps = sum(len(t) for s in segments(groups.conv.columns, columns) for t in s.taps)
    return (groups.period + rest) * taps * groups.inputs


def pack(workload: Workload, choice: Candidate, _target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """The weight as [vector][row tap][column tap][step][lane] (spanned: the steps before the taps); other parameters padded."""
    groups = groups_of(workload)
    assert groups is not None
    conv = groups.conv
    if index != conv.weight:
        return pack_parameter(workload, index, array)
    lanes, outputs = conv.target.block, np.arange(conv.target.channels)
    vectors, own = outputs // lanes, outputs % lanes
    if choice["shuffled"]:
        full = np.zeros((conv.target.blocks, *array.shape[2:], groups.inputs, lanes), np.float32)
        full[vectors, :, :, :, own] = array.transpose(0, 2, 3, 1)
        return full.reshape(-1)
    full = np.zeros((conv.target.blocks, groups.spanned, *array.shape[2:], lanes), np.float32)
    first = np.minimum(vectors * lanes // groups.outputs * groups.inputs, conv.source.channels - groups.spanned)
    for step in range(groups.inputs):
        full[vectors, outputs // groups.outputs * groups.inputs + step - first, :, :, own] = array[:, step]
    return full.reshape(-1)


def _steps(groups: Groups, choice: Candidate) -> int:
    return groups.inputs if choice["shuffled"] else groups.spanned


def multiplications(workload: Workload, _choice: Candidate) -> int:
    """Multiply-adds of the convolution itself, at most those that any of its kernels does."""
    groups = groups_of(workload)
    assert groups is not None
    target = groups.conv.target
    inside = [sum(a.inside(p, t) for p in range(a.out) for t in range(a.window)) for a in (groups.conv.rows, groups.conv.columns)]
    return target.batch * target.channels * groups.inputs * inside[0] * inside[1]


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    groups = groups_of(workload)
    assert groups is not None
    conv = groups.conv
    weight = conv.target.blocks * conv.target.block * _steps(groups, choice) * conv.taps
    sizes = input_sizes(workload, {conv.weight: weight})
    threads = sharing(target.threads, conv.target.elements * _steps(groups, choice) * conv.taps)

    def body(one: Any, *buffers: Any) -> None:
        _Emitter(workload, groups, choice, buffers, one).emit(threads)

    return flat_kernel([*sizes, workload.output.elements], body, opaque=conv.weight, dtypes=storages(workload))


class _Emitter:
    """Emits the loop nest of one grouped convolution into the current TIR builder."""

    def __init__(self, workload: Workload, groups: Groups, choice: Candidate, buffers: Sequence[Any], one: Any) -> None:
        self.workload, self.groups, self.conv, self.buffers, self.one = workload, groups, groups.conv, buffers, one
        self.columns, self.shuffled = choice["columns"], bool(choice["shuffled"])
        self.steps, self.lanes = _steps(groups, choice), groups.conv.target.block

    def emit(self, threads: int) -> None:
        batch, vectors, period = self.conv.target.batch, self.conv.target.blocks, self.groups.period
        if not self.shuffled:
            with each(batch * vectors, threads) as both:
                n, vector = divide(both, vectors)
                self._vector(n, vector, self._span(vector))
            return
        repeats, rest = divmod(vectors, period)
        with each(batch * repeats, threads) as both:
            n, repeat = divide(both, repeats)
            for place in range(period):
                self._vector(n, repeat * period + place, self._permutations(place, repeat))
        if rest:
            with loop(0, batch) as n:
                for place in range(rest):
                    self._vector(n, repeats * period + place, self._permutations(place, repeats))

    def _vector(self, n: Any, vector: Any, contract: Callable[..., None]) -> None:
        """All pixels of one output vector."""
        with loop(0, self.conv.rows.out) as y:
            for x in segments(self.conv.columns, self.columns):
                with loop(0, x.count) as i:
                    x0 = x.start + i * x.tile
                    bias = None if self.conv.bias is None else bind(load(self.buffers[self.conv.bias], vector * self.lanes, self.lanes))
                    sums = [register(self.lanes, bias) for _ in range(x.tile)]
                    contract(sums, n, vector, (y, x, x0))
                    for j, total in enumerate(sums):
                        self._finish(load(total, 0, self.lanes), n, vector, y, x0 + j)

    def _span(self, vector: Any) -> Callable[..., None]:
        """Spread one input channel after the other."""
        source, first = self.conv.source, self.groups.first(vector)

        def contract(sums: list[Any], n: Any, vector: Any, at: tuple[Any, Segment, Any]) -> None:
            y, x, x0 = at
            with loop(0, self.steps - 1 + self.one) as step:
                block, lane = divide(first + step, source.block)
                plane = bind((n * source.blocks + block) * (source.height * source.width * source.block) + lane)
                with self._rows(y) as (r, row):
                    taps = ((vector * self.steps + step) * self.conv.rows.window + r) * self.conv.columns.window
                    for column, uses in self._columns(x, x0):
                        index = plane + (row * source.width + column) * source.block
                        value = bind(splat(load(self.buffers[self.conv.data], index, 1), self.lanes))
                        for j, q in uses:
                            self._add(sums[j], value, (taps + q) * self.lanes)

        return contract

    def _permutations(self, place: int, repeat: Any) -> Callable[..., None]:
        """Give every lane its own group's channels: vector number `place` of a period."""
        source, groups, lanes = self.conv.source, self.groups, self.lanes
        wanted = [[groups.channel(place * lanes + lane, s) for lane in range(lanes)] for s in range(groups.inputs)]
        blocks = sorted({c // source.block for channels in wanted for c in channels})
        beyond = (self.conv.target.blocks - 1) // groups.period * groups.step + blocks[-1] >= source.blocks

        def block_of(number: int) -> Any:
            block = repeat * groups.step + number
            return T.min(block, source.blocks - 1) if beyond else block  # only lanes beyond the last channel ask for more

        def contract(sums: list[Any], n: Any, vector: Any, at: tuple[Any, Segment, Any]) -> None:
            y, x, x0 = at
            planes = {b: (n * source.blocks + block_of(b)) * source.height for b in blocks}
            with self._rows(y) as (r, row):
                taps = (vector * self.conv.rows.window + r) * self.conv.columns.window
                for column, uses in self._columns(x, x0):
                    loaded = {b: self._load(p + row, column) for b, p in planes.items()}
                    for step, channels in enumerate(wanted):
                        value = bind(_permuted(loaded, channels, source.block))
                        for j, q in uses:
                            self._add(sums[j], value, ((taps + q) * self.steps + step) * lanes)

        return contract

    def _load(self, row: Any, column: Any) -> Any:
        source = self.conv.source
        return bind(load(self.buffers[self.conv.data], (row * source.width + column) * source.block, source.block))

    def _add(self, total: Any, value: Any, weight: Any) -> None:
        accumulate(total, value * load(self.buffers[self.conv.weight], weight, self.lanes), self.lanes)

    @contextmanager
    def _rows(self, y: Any) -> Generator[tuple[Any, Any]]:
        """A loop over the row taps of output row `y` that are inside the input: (tap, input row)."""
        rows = self.conv.rows
        with loop(*taps_inside(rows, y)) as r:
            yield r, y * rows.stride + r * rows.dilation - rows.padding

    def _columns(self, x: Segment, x0: Any) -> list[tuple[Any, list[tuple[int, int]]]]:
        """The input columns that a tile reads, each with the (position, tap) pairs that use it."""
        axis, uses = self.conv.columns, dict[int, list[tuple[int, int]]]()
        for j, taps in enumerate(x.taps):
            for q in taps:
                uses.setdefault(axis.offset(j, q), []).append((j, q))
        return [(x0 * axis.stride + offset, pairs) for offset, pairs in sorted(uses.items())]

    def _finish(self, value: Any, n: Any, vector: Any, y: Any, x: Any) -> None:
        goal = self.conv.target
        element = (((n * goal.blocks + vector) * goal.height + y) * goal.width + x) * self.lanes
        place = epilogue.Place(self.lanes, element, vector * self.lanes, (n * goal.blocks + vector) * self.lanes)
        value = epilogue.apply(self.workload, 1, {len(self.workload.inputs): value}, self.buffers, place)
        store(self.buffers[-1], element, value, self.lanes)


def _permuted(loaded: dict[int, Any], channels: list[int], block: int) -> Any:
    """A vector with these channels, taken from the blocks that hold them."""
    used = sorted({c // block for c in channels})
    least = -(-len(channels) // block)  # TVM wants no more places than it is given
    vectors = [loaded[b] for b in (*used, *used[:1] * (least - len(used)))]
    return T.Shuffle(vectors, [used.index(c // block) * block + c % block for c in channels])
