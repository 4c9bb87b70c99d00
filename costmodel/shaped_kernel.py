"""A kernel as a function of axis sizes: its workload with dimension types where numbers would be."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from billhook.ir.dims import BATCH, Dim, extent, leaves
from billhook.ir.program import SizeOf
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, Role, TensorType, Workload

from .partition_emit import LAYOUT

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ShapedTensor:
    """A tensor of a kernel with its shape as dimension types."""

    dims: tuple[Dim, ...]
    dtype: str
    blocked: bool

    def at(self, sizes: Sizes, target: Target) -> TensorType:
        shape = tuple(extent(d, sizes) for d in self.dims)
        return TensorType(shape, self.dtype, target.channel_block(shape[1]) if self.blocked else 0)


@dataclass(frozen=True, slots=True)
class ShapedCall:
    """A call whose literals may be `SizeOf`. instead: the calls that replace it once one of `around` is resized."""

    call: Call
    instead: tuple[Call, ...] = ()
    around: tuple[Dim, ...] = ()

    def at(self, sizes: Sizes) -> tuple[Call, ...]:
        if self.instead and any(
            sizes.get(leaf.name, leaf.size) != leaf.size for d in self.around for leaf in leaves(d) if leaf.name not in (None, BATCH)
        ):
            return self.instead
        return (self.call,)


@dataclass(frozen=True, slots=True)
class ShapedKernel:
    """A kernel as a function of axis sizes."""

    name: str
    inputs: tuple[ShapedTensor, ...]
    roles: tuple[Role, ...]
    calls: tuple[ShapedCall, ...]
    output: ShapedTensor
    target: Target
    gates: frozenset[str] = frozenset()  # axes that take the kernel with them when their size is 0

    def dims(self) -> Iterator[Dim]:
        """Every dimension that the kernel's shape or literals depend on, with repeats."""
        for tensor in (*self.inputs, self.output):
            yield from tensor.dims
        for shaped in self.calls:
            for call in (shaped.call, *shaped.instead):
                yield from _literal_dims((call.args, tuple(v for _, v in call.kwargs)))

    @property
    def axes(self) -> tuple[str, ...]:
        """The named axes that the kernel's shape depends on, sorted; whether it exists may depend on more (`gates`)."""
        return tuple(sorted({leaf.name for d in self.dims() for leaf in leaves(d) if leaf.name}))

    def replaced(self, change: Callable[[Dim], Dim]) -> "ShapedKernel":
        """The kernel with every dimension replaced."""

        def tensor(given: ShapedTensor) -> ShapedTensor:
            return replace(given, dims=tuple(map(change, given.dims)))

        def literals(call: Call) -> Call:
            return _map_call(call, lambda v: SizeOf(change(v.dim)) if isinstance(v, SizeOf) else v)

        calls = tuple(ShapedCall(literals(c.call), tuple(map(literals, c.instead)), tuple(map(change, c.around))) for c in self.calls)
        return replace(self, inputs=tuple(map(tensor, self.inputs)), calls=calls, output=tensor(self.output))

    def at(self, sizes: Sizes) -> Workload | None:
        """The workload at these sizes (axes not named stay as they are); None where the kernel vanishes.

        It vanishes with its output, and with an input, since what sums over nothing is a constant that is folded into
        its reader; a concatenation goes on with the inputs that remain. It also vanishes when nothing reads it any more.
        """
        if any(sizes.get(axis) == 0 for axis in self.gates):
            return None
        output = self.output.at(sizes, self.target)
        types = [t.at(sizes, self.target) for t in self.inputs]
        empty = {i for i, (t, role) in enumerate(zip(types, self.roles, strict=True)) if role == "activation" and 0 in t.shape}
        if 0 in output.shape or (empty and not self._only_concatenates(empty)):
            return None
        kept = [i for i in range(len(types)) if i not in empty]
        calls = _renumbered([c.at(sizes) for c in self.calls], len(types), kept, sizes)
        workload = Workload(tuple(types[i] for i in kept), tuple(self.roles[i] for i in kept), calls, output)
        return _without_trivial_cat(workload) if empty else workload

    def _only_concatenates(self, inputs: set[int]) -> bool:
        """Whether these inputs are read by concatenations and nothing else."""
        calls = [c.call for c in self.calls]
        read = {r.index for c in calls for a in c.args for r in ([a] if isinstance(a, Ref) else [])}
        lists = {
            r.index for c in calls if c.op != "aten.cat.default" for a in c.args if isinstance(a, tuple) for r in a if isinstance(r, Ref)
        }
        return not inputs & (read | lists)


def _literal_dims(value: Any) -> Iterator[Dim]:
    if isinstance(value, SizeOf):
        yield value.dim
    elif isinstance(value, tuple):
        for item in cast("tuple[Any, ...]", value):
            yield from _literal_dims(item)


def _map_call(call: Call, change: Callable[[Any], Any]) -> Call:
    def visit(value: Any) -> Any:
        return tuple(visit(v) for v in cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else change(value)

    return Call(call.op, visit(call.args), tuple((k, visit(v)) for k, v in call.kwargs))


def _renumbered(groups: Iterable[tuple[Call, ...]], inputs: int, kept: list[int], sizes: Sizes) -> tuple[Call, ...]:
    """Calls with sizes evaluated, dropped inputs left out of lists, and references renumbered where calls were added."""
    number = {old: new for new, old in enumerate(kept)}
    calls: list[Call] = []

    def evaluated(value: Any) -> Any:
        if isinstance(value, SizeOf):
            return extent(value.dim, sizes)
        if isinstance(value, Ref):
            return Ref(len(kept) + len(calls) - 1) if value.index == -1 else Ref(number[value.index])
        if isinstance(value, tuple):
            return tuple(
                evaluated(v) for v in cast("tuple[Any, ...]", value) if not isinstance(v, Ref) or v.index == -1 or v.index in number
            )
        return value

    for place, group in enumerate(groups):
        for call in group:
            arguments = evaluated(call.args), tuple((k, evaluated(v)) for k, v in call.kwargs)  # these count the calls so far
            calls.append(Call(call.op, *arguments))
        number[inputs + place] = len(kept) + len(calls) - 1
    return tuple(calls)


def _without_trivial_cat(workload: Workload) -> Workload | None:
    """A kernel that only concatenates one tensor is no kernel, or a change of its layout."""
    (call, *more), given = workload.calls, workload.inputs
    if more or call.op != "aten.cat.default" or len(given) > 1:
        return workload
    return None if given[0].block == workload.output.block else replace(workload, calls=(Call(LAYOUT, (Ref(0),)),))
