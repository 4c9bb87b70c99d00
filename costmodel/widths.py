"""Kernels at other widths: what each kernel of the dense network becomes when axes shrink, without cutting anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from billhook.ir.dims import Concat, Dim, Leaf, extent, leaves
from billhook.ir.errors import VerifyError
from billhook.ir.program import Edit, Program, SizeOf, tensor_args
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, Role, TensorType, Workload

from .operators import bound
from .origin import CallOrigin, Extent, Extents, Path
from .partition import Partition
from .partition_emit import LAYOUT

BATCH = "batch"
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


class WidthModel:
    """The kernels of a partitioned network as functions of the sizes of a program's axes.

    program: with inferred axes; `partition` is made of its own captured graph (at any batch size), whose node names say which
    dimension is which. Raises VerifyError where the two do not agree.
    """

    def __init__(self, program: Program, partition: Partition) -> None:
        self.program, self.partition = program, partition
        self._nodes = {n.name: n for n in program.nodes()}
        shaped = tuple(map(self._kernel, range(len(partition.network.kernels))))
        _check(partition, shaped)
        gates = _gates(partition, shaped)
        self.kernels = tuple(replace(k, gates=g) for k, g in zip(shaped, gates, strict=True))

    def workload(self, index: int, sizes: Sizes) -> Workload | None:
        """Kernel number `index` at these axis sizes (see `ShapedKernel.at`)."""
        return self.kernels[index].at(sizes)

    def workloads(self, sizes: Sizes) -> tuple[Workload, ...]:
        """All kernels that remain at these axis sizes, in execution order."""
        return tuple(w for k in self.kernels if (w := k.at(sizes)) is not None)

    def _kernel(self, index: int) -> ShapedKernel:
        kernel, origins = self.partition.network.kernels[index], self.partition.calls[index]
        workload, dims = kernel.workload, self.partition.dims
        inputs = tuple(self._tensor(t, dims[name]) for t, name in zip(workload.inputs, kernel.inputs, strict=True))
        calls = tuple(self._call(call, origin) for call, origin in zip(workload.calls, origins, strict=True))
        return ShapedKernel(
            kernel.name, inputs, workload.roles, calls, self._tensor(workload.output, dims[kernel.output]), self.partition.target
        )

    def _tensor(self, given: TensorType, extents: Extents) -> ShapedTensor:
        return ShapedTensor(tuple(self._dim(e, size) for e, size in zip(extents, given.shape, strict=True)), given.dtype, given.block > 0)

    def _dim(self, extent: Extent, size: int) -> Dim:
        """The type of an extent; a plain number where the program does not know it."""
        if isinstance(extent, int):
            return Leaf(None, extent)
        if extent.node in self.program.types:
            return self.program.types[extent.node][cast("Any", extent).dim]
        edit = self.program.edits.get(extent.node)
        pieces = edit.args[1] if edit is not None and len(edit.args) > 1 else None
        piece = getattr(extent, "piece", None)
        if not isinstance(pieces, list) or piece is None:
            return Leaf(None, size)
        before = tuple(cast("SizeOf", p).dim for p in cast("list[Any]", pieces)[:piece])
        if len(before) == 1:
            return before[0]
        return Concat(before, sum(d.size for d in before)) if before else Leaf(None, 0)

    def _call(self, call: Call, origin: CallOrigin) -> ShapedCall:
        for path, reference in origin.literals:
            call = _set(call, path, SizeOf(self._dim(reference, _get(call, path))))
        edit = self.program.edits.get(origin.captured or "")
        if edit is None:
            return ShapedCall(call)
        if edit.op is not None or edit.scale is not None:
            node = self._nodes[cast("str", origin.captured)]
            around = tuple(d for n in (node, *tensor_args(node)) for d in self.program.types.get(n.name, ()))
            return ShapedCall(call, _instead(call, edit), around)
        args = tuple(_overlay(a, e) for a, e in zip(call.args, edit.args, strict=False)) + call.args[len(edit.args) :]
        named = dict(edit.kwargs)
        return ShapedCall(Call(call.op, args, tuple((k, _overlay(v, named.get(k))) for k, v in call.kwargs)))


def _check(partition: Partition, shaped: tuple[ShapedKernel, ...]) -> None:
    """The kernels at their present sizes must be the network's own."""
    batches = {given.shape[0] for _, given in partition.network.inputs if given.shape}
    sizes = {BATCH: batches.pop()} if len(batches) == 1 else {}
    for kernel, known in zip(shaped, partition.network.kernels, strict=True):
        if kernel.at(sizes) != known.workload:
            raise VerifyError(
                f"kernel {known.name} does not follow the program's axes; partition the program's captured graph itself, not one made from it"
            )


def _gates(partition: Partition, shaped: tuple[ShapedKernel, ...]) -> list[frozenset[str]]:
    """For every kernel, the axes whose size 0 removes it: those that empty its output or an input, or leave nothing that reads it.

    A kernel whose anchor sums over nothing still passes a residual on, in its reader's epilogue, so it needs the residual.
    """
    network = partition.network
    readers: dict[str, list[int]] = {}
    for i, kernel in enumerate(network.kernels):
        for name in kernel.inputs:
            readers.setdefault(name, []).append(i)
    gates: list[frozenset[str]] = [frozenset()] * len(shaped)
    unread: list[frozenset[str]] = [frozenset()] * len(shaped)
    for i in reversed(range(len(shaped))):
        kernel, output = shaped[i], network.kernels[i].output
        axes = [a for a in kernel.axes if a != BATCH]
        later = [unread[r] for r in readers.get(output, ())] if output not in network.outputs else []
        empty = frozenset(a for a in axes if 0 in kernel.output.at({a: 0}, kernel.target).shape)
        unread[i] = empty | (frozenset.intersection(*later) if later else frozenset())
        gates[i] = unread[i] | frozenset(a for a in axes if kernel.at({a: 0}) is None)
    return gates


def _overlay(literal: Any, edited: Any) -> Any:
    """A literal with the sizes that an edit puts in its place."""
    if isinstance(edited, SizeOf) and not isinstance(literal, SizeOf):
        return edited
    if isinstance(edited, list) and isinstance(literal, tuple):
        items = cast("list[Any]", edited)
        if len(items) == len(cast("tuple[Any, ...]", literal)):
            return tuple(_overlay(v, e) for v, e in zip(cast("tuple[Any, ...]", literal), items, strict=True))
    return literal


def _instead(call: Call, edit: Edit) -> tuple[Call, ...]:
    """The calls that an edit with another operator or a scale makes of a call; the scaling refers to the call before by Ref(-1)."""
    source = next(a for a in call.args if isinstance(a, Ref))
    if edit.op is None:
        calls = [call]
    else:
        given = [source if isinstance(a, torch.fx.Node) else _tuples(a) for a in edit.args]
        args, kwargs = bound(edit.op, given, {})
        calls = [Call(str(edit.op), tuple(map(_tuples, args)), kwargs)]
    if edit.scale is not None:
        calls.append(Call("aten.mul.Tensor", (Ref(-1), edit.scale)))
    return tuple(calls)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in cast("list[Any]", value)) if isinstance(value, (list, tuple)) else value


def _get(call: Call, path: Path) -> int:
    value: Any = call.args
    for step in path:
        value = value[step]
    return int(value)


def _set(call: Call, path: Path, value: Any) -> Call:
    def put(here: Any, rest: Path) -> Any:
        return value if not rest else (*here[: rest[0]], put(here[rest[0]], rest[1:]), *here[rest[0] + 1 :])

    return Call(call.op, put(call.args, path), call.kwargs)


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
            calls.append(Call(call.op, evaluated(call.args), tuple((k, evaluated(v)) for k, v in call.kwargs)))
        number[inputs + place] = len(kept) + len(calls) - 1
    return tuple(calls)


def _without_trivial_cat(workload: Workload) -> Workload | None:
    """A kernel that only concatenates one tensor is no kernel, or a change of its layout."""
    (call, *more), given = workload.calls, workload.inputs
    if more or call.op != "aten.cat.default" or len(given) > 1:
        return workload
    return None if given[0].block == workload.output.block else replace(workload, calls=(Call(LAYOUT, (Ref(0),)),))
