"""Writing kernels down: workloads over stored values, with layout changes where producer and reader differ."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from billhook.ir.errors import CaptureError
from billhook.ir.network import Kernel
from billhook.ir.target import Target
from billhook.ir.workload import Arg, Call, Ref, Role, TensorType, Workload

from .operators import bound, dims_of, dtype_name, is_move, is_pointwise, is_reshape
from .origin import CallOrigin, Extents, dims_meta, origin_meta
from .partition_groups import Group, Grouping
from .partition_layout import is_grouped, is_map

LAYOUT = "billhook.layout"


@dataclass(frozen=True, slots=True)
class _Input:
    """A value that a kernel reads, while its calls are being collected."""

    name: str
    type: TensorType
    role: Role


@dataclass(slots=True)
class _Body:
    """The calls of a kernel under construction; arguments refer to inputs by `_Input` and to calls by their number."""

    inputs: dict[str, _Input] = field(default_factory=dict[str, _Input])
    calls: list[tuple[str, tuple[Any, ...], tuple[tuple[str, Any], ...]]] = field(default_factory=list[Any])
    origins: list[CallOrigin] = field(default_factory=list[CallOrigin])
    value_of: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])

    def read(self, given: _Input) -> _Input:
        return self.inputs.setdefault(given.name, given)

    def call(self, op: str, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...] = (), origin: CallOrigin | None = None) -> int:
        self.calls.append((op, args, kwargs))
        self.origins.append(origin or CallOrigin())
        return len(self.calls) - 1

    def workload(self, output: TensorType) -> Workload:
        """The finished workload: inputs are numbered in the order in which the calls read them."""
        number = {name: i for i, name in enumerate(self.inputs)}

        def argument(value: Any) -> Arg:
            if isinstance(value, _Input):
                return Ref(number[value.name])
            if isinstance(value, _Result):
                return Ref(len(number) + value.call)
            return tuple(argument(v) for v in cast("Sequence[Any]", value)) if isinstance(value, (tuple, list)) else value

        calls = tuple(Call(op, tuple(map(argument, args)), tuple((k, argument(v)) for k, v in kwargs)) for op, args, kwargs in self.calls)
        inputs = self.inputs.values()
        return Workload(tuple(i.type for i in inputs), tuple(i.role for i in inputs), calls, output)


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of a kernel's call."""

    call: int


class Emitter:
    """Emits the kernels of all groups in order, and layout changes on demand."""

    def __init__(self, grouping: Grouping, target: Target) -> None:
        self.grouping, self.target = grouping, target
        self.kernels: list[Kernel] = []
        self.origins: list[tuple[CallOrigin, ...]] = []
        self.dims: dict[str, Extents] = {}
        self.constants: set[str] = set()

    def run(self) -> None:
        for group in self.grouping.groups():
            self._group(group)

    def row_major(self, node: fx.Node) -> str:
        """The name of a stored value in row-major order."""
        if node.op == "get_attr":
            return str(node.target)
        if self.grouping.is_loose(node):  # only moves that a layout kernel can make
            return self._cross(node, cast("fx.Node", node.args[0]), node.name, self._type(node, blocked=False), move_first=False)
        if node not in self.grouping.blocked or not self._stored_blocked(node):
            return node.name
        return self._cross(node, node, f"{node.name}.row_major", self._type(node, blocked=False), move_first=False)

    def _blocked(self, node: fx.Node) -> str:
        """The name of a stored map in the channel-blocked layout."""
        kind = self._type(node, blocked=True)
        if self.grouping.crosses_in(node):
            return self._cross(node, cast("fx.Node", node.args[0]), node.name, kind, move_first=True)
        if self._stored_blocked(node):
            return node.name
        return self._cross(node, node, f"{node.name}.blocked", kind, move_first=False)

    def _stored_blocked(self, node: fx.Node) -> bool:
        group = self.grouping.of_tail.get(node)
        return group is not None and group.blocked

    def _type(self, node: fx.Node, *, blocked: bool) -> TensorType:
        shape = dims_of(node)
        return TensorType(shape, dtype_name(node), self.target.channel_block(shape[1]) if blocked else 0)

    def _cross(self, node: fx.Node, source: fx.Node, name: str, output: TensorType, *, move_first: bool) -> str:
        """A kernel that changes the layout of `source`, with the move `node` before or behind if that is another value."""
        if name in self.dims:
            return name
        body = _Body()
        stored = self._type(source, blocked=self._stored_blocked(source))
        value: Any = body.read(_Input(source.name, stored, "activation"))
        flat = node is not source and is_reshape(node)
        moves: list[fx.Node | None] = [node] if node is not source else []
        steps: list[fx.Node | None] = moves if flat else [*moves, None] if move_first else [None, *moves]
        for step in steps:
            if step is None:
                value = _Result(body.call(LAYOUT, (value,)))
            else:
                body.value_of[source] = value
                value = self._call(body, step)
        self._finish(body, node.name, name, output, dims_meta(node.meta))
        return name

    def _finish(self, body: _Body, kernel: str, output: str, kind: TensorType, dims: Extents) -> None:
        self.kernels.append(Kernel(kernel, body.workload(kind), tuple(body.inputs), output))
        self.origins.append(tuple(body.origins))
        self.dims[output] = dims

    def _group(self, group: Group) -> None:
        body = _Body()
        tail, inside = group.tail, set(group.nodes)
        for node in group.nodes:
            if group.kind == "pool" and not group.blocked and is_reshape(node):
                continue  # the output's shape says it
            for value in _values(node):
                if value not in inside and value not in body.value_of:
                    body.value_of[value] = self._operand(body, group, node, value)
            body.value_of[node] = self._call(body, node)
        anchor = next((n for n in group.nodes if group.kind != "generic"), tail)
        kernel = anchor.name if group.kind != "generic" else _main(group).name
        self._finish(body, kernel, tail.name, self._type(tail, blocked=group.blocked), dims_meta(tail.meta))

    def _operand(self, body: _Body, group: Group, reader: fx.Node, value: fx.Node) -> Any:
        if value.op == "get_attr":
            name = str(value.target)
            self.constants.add(name)
            self.dims[name] = dims_meta(value.meta)
            as_map = reader in self.grouping.blocked and is_pointwise(reader) and dims_of(value) == dims_of(reader)
            return body.read(_Input(name, self._type(value, blocked=as_map), "parameter"))
        if group.kind == "generic" and self.grouping.is_loose(value) and not self.grouping.crosses_out(value):
            source = cast("fx.Node", value.args[0])
            if source not in body.value_of:
                body.value_of[source] = self._operand(body, group, value, source)
            return self._call(body, value)
        if group.kind == "cat":
            blocked = self._stored_blocked(value)
        else:
            blocked = self.grouping.reads_blocked(reader) and is_map(value) and not _reads_directly(reader, value)
        name = self._blocked(value) if blocked else self.row_major(value)
        return body.read(_Input(name, self._type(value, blocked=blocked), "activation"))

    def _call(self, body: _Body, node: fx.Node) -> _Result:
        """Append a graph call with all its arguments in schema order; its operands are known."""
        args, kwargs = bound(node.target, node.args, node.kwargs)
        args = tuple(_literal(node, body, a) for a in args)
        kwargs = tuple((k, _literal(node, body, v)) for k, v in kwargs)
        return _Result(body.call(str(node.target), args, kwargs, origin_meta(node.meta)))


def _values(node: fx.Node) -> list[fx.Node]:
    return list(dict.fromkeys(node.all_input_nodes))


def _main(group: Group) -> fx.Node:
    """The call that a generated kernel is named after: its first that is more than a move, else its last."""
    heavy = [n for n in group.nodes if not is_move(n) and not is_pointwise(n)]
    return (heavy or [n for n in group.nodes if not is_move(n)] or [group.tail])[0]


def _reads_directly(reader: fx.Node, value: fx.Node) -> bool:
    """A dense convolution reads the network's row-major input as it is."""
    return value.op == "placeholder" and reader.args[0] is value and str(reader.target) == "aten.conv2d.default" and not is_grouped(reader)


def _literal(node: fx.Node, body: _Body, value: Any) -> Any:
    if isinstance(value, fx.Node):
        return body.value_of[value]
    if isinstance(value, (list, tuple)):
        return tuple(_literal(node, body, v) for v in cast("Sequence[Any]", value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.dtype, torch.device, torch.memory_format, torch.layout)):
        return str(value)
    raise CaptureError(f"node {node.name}: argument {value!r} of {node.target} cannot be written into a workload")
