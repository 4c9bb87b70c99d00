"""Kernels at other widths: what each kernel of the dense network becomes when axes shrink, without cutting anything."""

from dataclasses import replace
from typing import Any, cast

import torch

from billhook.ir.dims import BATCH, Concat, Dim, Leaf
from billhook.ir.errors import VerifyError
from billhook.ir.program import Edit, Program, SizeOf, tensor_args
from billhook.ir.workload import Call, Ref, TensorType, Workload

from .operators import bound
from .origin import ArgumentOf, CallOrigin, Extent, Extents, Path
from .partition import Partition
from .shaped_kernel import ShapedCall, ShapedKernel, ShapedTensor, Sizes


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
        if isinstance(extent, ArgumentOf):
            found = self.program.edits.get(extent.node)
            value = found.args[extent.place] if found is not None and extent.place < len(found.args) else None
            return value.dim if isinstance(value, SizeOf) else Leaf(None, size)
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
                f"kernel {known.name} does not follow the program's axes; partition the captured graph itself, not one made from it"
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
