"""Chains of calls that only move elements, as index arithmetic: where an element of the result is found, and where it goes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billhook.codegen.tvm_any import T
from billhook.ir.workload import Arg, Call, Ref, Workload

Index = Sequence[Any]  # one expression (or number) per dimension


@dataclass(frozen=True, slots=True)
class Move:
    """One call: name of the operator, shapes before and after, and its arguments behind the tensor."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    arguments: tuple[Arg, ...]

    def origin(self, index: Index) -> Index:
        """Where the element at `index` of the result lies in the operand."""
        return _ORIGINS[self.name](self, index)

    def inverse(self) -> "Move | None":
        """The move that takes this one back; None if some elements are dropped."""
        if self.name == "reshape":
            return Move("reshape", self.after, self.before, ())
        if self.name == "permute":
            order = _numbers(self.arguments[0])
            return Move("permute", self.after, self.before, (tuple(order.index(d) for d in range(len(order))),))
        if self.name == "roll":
            return Move("roll", self.after, self.before, (tuple(-s for s in _numbers(self.arguments[0])), self.arguments[1]))
        return None


@dataclass(frozen=True, slots=True)
class View:
    """A value that is an input seen through moves. source: the input's number; shape: of the value."""

    source: int
    shape: tuple[int, ...]
    origin_shape: tuple[int, ...]
    moves: tuple[Move, ...]

    def address(self, index: Index) -> Any:
        """Flat position in the row-major source of the element at `index`."""
        for move in reversed(self.moves):
            index = move.origin(index)
        return flat_index(index, self.origin_shape)


def views(workload: Workload, stop: int) -> dict[int, View] | None:
    """The inputs and what calls [0, stop) make of them; None if one of these calls is no move, or the layout is blocked."""
    if any(t.block for t in workload.inputs):
        return None
    found = {i: View(i, t.shape, t.shape, ()) for i, t in enumerate(workload.inputs)}
    for number, call in enumerate(workload.calls[:stop]):
        source = call.args[0] if call.args else None
        if not isinstance(source, Ref) or source.index not in found:
            return None
        view = found[source.index]
        move = move_of(call, view.shape)
        if move is None:
            return None
        found[len(workload.inputs) + number] = View(view.source, move.after, view.origin_shape, (*view.moves, move))
    return found


def chain(workload: Workload, start: int, shape: tuple[int, ...]) -> tuple[Move, ...] | None:
    """The moves from call `start` to the output, each of the result of the call before it, which has `shape` at first."""
    found: list[Move] = []
    for number, call in enumerate(workload.calls[start:], start):
        move = move_of(call, shape) if call.args and call.args[0] == Ref(len(workload.inputs) + number - 1) else None
        if move is None:
            return None
        found.append(move)
        shape = move.after
    return tuple(found) if shape == workload.output.shape or not found else None


def move_of(call: Call, before: tuple[int, ...]) -> Move | None:
    """A call on a tensor of shape `before` as a move, or None if it is none (or one with special arguments)."""
    name = call.op.split(".")[1] if call.op.startswith("aten.") else ""
    if name not in _SHAPES or any(isinstance(a, Ref) for a in call.args[1:]):
        return None
    after = _SHAPES[name](before, call.args[1:])
    return None if after is None else Move(name, before, after, call.args[1:])


def flat_index(index: Index, shape: Sequence[int]) -> Any:
    """Row-major position."""
    position: Any = 0
    for i, size in zip(index, shape, strict=True):
        position = position * size + i
    return position


def split_index(position: Any, shape: Sequence[int]) -> list[Any]:
    """The index at a row-major position."""
    index: list[Any] = []
    for d, size in enumerate(shape):
        rest = math.prod(shape[d + 1 :])
        here = position if rest == 1 else _div(position, rest)
        index.append(here if d == 0 else _mod(here, size))
    return index


def _div(value: Any, by: int) -> Any:
    return value // by if isinstance(value, int) else T.floordiv(value, by)


def _mod(value: Any, by: int) -> Any:
    return value % by if isinstance(value, int) else T.floormod(value, by)


def _numbers(arg: Arg) -> tuple[int, ...]:
    values = arg if isinstance(arg, tuple) else (arg,)
    return tuple(v for v in values if isinstance(v, int))


def _reshaped(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, ...] | None:
    shape = _numbers(args[0])
    return shape if math.prod(shape) == math.prod(before) and min(shape, default=1) > 0 else None


def _permuted(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, ...]:
    return tuple(before[d] for d in _numbers(args[0]))


def _bounds(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, int, int, int]:
    """Dimension, first index, step and number of indices of a slice."""
    dim, start, stop, step = (*args, *(0, None, None, 1)[len(args) :])
    assert isinstance(dim, int)
    dim %= len(before)
    values = range(before[dim])[slice(_optional(start), _optional(stop), _optional(step))]
    return dim, values.start, values.step, len(values)


def _optional(arg: Arg) -> int | None:
    return arg if isinstance(arg, int) else None


def _sliced(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, ...]:
    dim, _, _, count = _bounds(before, args)
    return (*before[:dim], count, *before[dim + 1 :])


def _selected(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, ...]:
    dim = _numbers(args[0])[0] % len(before)
    return (*before[:dim], *before[dim + 1 :])


def _rolled(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, ...] | None:
    return before if len(args) > 1 and len(_numbers(args[0])) == len(_numbers(args[1])) > 0 else None


def _expanded(before: tuple[int, ...], args: tuple[Arg, ...]) -> tuple[int, ...] | None:
    shape = _numbers(args[0])
    aligned = (*[1] * (len(shape) - len(before)), *before)
    return tuple(own if size == -1 else size for own, size in zip(aligned, shape, strict=True)) if len(aligned) == len(shape) else None


def _origin_reshape(move: Move, index: Index) -> Index:
    return split_index(flat_index(index, move.after), move.before)


def _origin_permute(move: Move, index: Index) -> Index:
    order = _numbers(move.arguments[0])
    return [index[order.index(d)] for d in range(len(order))]


def _origin_slice(move: Move, index: Index) -> Index:
    dim, start, step, _ = _bounds(move.before, move.arguments)
    return [i * step + start if d == dim else i for d, i in enumerate(index)]


def _origin_select(move: Move, index: Index) -> Index:
    dim, chosen = (_numbers(a)[0] for a in move.arguments)
    dim %= len(move.before)
    return [*index[:dim], chosen % move.before[dim], *index[dim:]]


def _origin_roll(move: Move, index: Index) -> Index:
    shifts = {d % len(move.before): s for s, d in zip(_numbers(move.arguments[0]), _numbers(move.arguments[1]), strict=True)}
    return [_mod(i - shifts[d] % move.before[d] + move.before[d], move.before[d]) if d in shifts else i for d, i in enumerate(index)]


def _origin_expand(move: Move, index: Index) -> Index:
    own = index[len(index) - len(move.before) :]
    return [0 if size == 1 else i for i, size in zip(own, move.before, strict=True)]


_SHAPES = {"reshape": _reshaped, "permute": _permuted, "slice": _sliced, "select": _selected, "roll": _rolled, "expand": _expanded}
_ORIGINS = {
    "reshape": _origin_reshape,
    "permute": _origin_permute,
    "slice": _origin_slice,
    "select": _origin_select,
    "roll": _origin_roll,
    "expand": _origin_expand,
}


def rows_stay(moves: Sequence[Move], width: int) -> bool:
    """Whether moves leave rows of `width` neighbouring elements together and in order: they only act on the dimensions before."""
    return all(_keeps_rows(m, width) for m in moves)


def _keeps_rows(move: Move, width: int) -> bool:
    before, after = move.before, move.after
    if not before or not after or _tail(before, width) is None or _tail(after, width) is None:
        return False
    kept = _tail(before, width)
    assert kept is not None
    first = len(before) - kept  # the first dimension of a row
    if move.name == "reshape":
        return True
    if move.name == "expand":
        return before[first:] == after[len(after) - kept :]
    if move.name == "permute":
        order = _numbers(move.arguments[0])
        units = [d for d in order if before[d] > 1]
        inside = [d for d in range(first, len(before)) if before[d] > 1]
        return units[len(units) - len(inside) :] == inside
    dims = [d % len(before) for d in _numbers(move.arguments[1 if move.name == "roll" else 0])]
    return all(d < first for d in dims)


def _tail(shape: tuple[int, ...], width: int) -> int | None:
    """How many trailing dimensions make up exactly `width` elements; None if there is no such number."""
    total = 1
    for count, size in enumerate(reversed(shape), 1):
        total *= size
        if total == width:
            return count
        if total > width:
            return None
    return None
