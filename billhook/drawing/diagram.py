"""What is drawn: the operators gathered into rows, and the values that run between them."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from billhook.ir.dims import BATCH, Dim, leaves
from billhook.ir.program import Program, tensor_args

SECTION_SHARE = 0.4  # of all rows: a section with more is divided by one more level of the module tree
SECTION_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that one row makes and others read, or none. axes: those of its dimensions; main: the one that colours it."""

    node: fx.Node
    source: int
    uses: tuple[int, ...]
    dims: tuple[Dim, ...]
    axes: tuple[str, ...]
    main: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """An operator and those that only carry its result on. inputs, outputs: indices of values; path: the module it belongs to."""

    nodes: tuple[fx.Node, ...]
    path: str
    section: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Diagram:
    """Rows in order of execution, and the values between them."""

    rows: tuple[Row, ...]
    values: tuple[Value, ...]


def diagram_of(program: Program) -> Diagram:
    """The rows and values of a program. Linear in the edges of its graph."""
    groups = _groups(program)
    home = {node: i for i, group in enumerate(groups) for node in group}
    values: list[Value] = []
    outputs: list[list[int]] = [[] for _ in groups]
    inputs: list[list[int]] = [[] for _ in groups]
    for i, group in enumerate(groups):
        for node in group:
            uses = tuple(sorted({home[user] for user in node.users if user in home} - {i}))
            if uses or (node is group[-1] and node.op != "output" and not outputs[i]):
                for row in uses:
                    inputs[row].append(len(values))
                outputs[i].append(len(values))
                values.append(_value(program, node, i, uses))
    paths = [_path(group) for group in groups]
    sections = _sections(paths)
    rows = (Row(tuple(g), p, s, tuple(a), tuple(b)) for g, p, s, a, b in zip(groups, paths, sections, inputs, outputs, strict=True))
    return Diagram(tuple(rows), tuple(values))


def _value(program: Program, node: fx.Node, source: int, uses: tuple[int, ...]) -> Value:
    dims = program.types.get(node.name, ())
    found = {leaf.name: leaf.size for dim in dims for leaf in leaves(dim) if leaf.name not in (None, BATCH)}
    index = program.axis_index
    named = sorted((name for name in found if name in index), key=lambda name: (not index[name].prunable, -found[name]))
    return Value(node, source, uses, dims, tuple(named), named[0] if named else None)


def _groups(program: Program) -> list[list[fx.Node]]:
    """Calls in order; one that only carries on what the call before it made stays with it."""
    summing = {read.node for read in program.reads if not read.statistic}
    groups: list[list[fx.Node]] = []
    home: dict[fx.Node, list[fx.Node]] = {}
    for node in program.nodes():
        if node.op == "get_attr" or (node.op == "call_function" and not _makes_tensors(node)):
            continue
        sources = list(dict.fromkeys(arg for arg in tensor_args(node) if arg in home))
        if len(sources) == 1 and _carries_on(node, sources[0], home[sources[0]], summing):
            group = home[sources[0]]
            group.append(node)
        else:
            group = [node]
            groups.append(group)
        home[node] = group
    return groups


def _makes_tensors(node: fx.Node) -> bool:
    value = node.meta.get("val")
    parts = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(part, torch.Tensor) for part in parts)  # pyright: ignore[reportUnknownVariableType]


def _carries_on(node: fx.Node, source: fx.Node, group: list[fx.Node], summing: set[str]) -> bool:
    if node.target is operator.getitem:
        return True
    if node.op != "call_function" or source.op != "call_function" or source.target is operator.getitem:
        return False
    has_weights = any(arg.op == "get_attr" and arg.meta["val"].ndim > 1 for arg in tensor_args(node))
    return group[-1] is source and len(source.users) == 1 and node.name not in summing and not has_weights


def _path(group: list[fx.Node]) -> str:
    """The module that the first operator of a row was called in; without that knowledge, the module of a tensor that it reads."""
    stack = group[0].meta.get("nn_module_stack")
    if stack:
        return str(list(stack.values())[-1][0])
    tensors = (str(arg.target) for arg in tensor_args(group[0]) if arg.op == "get_attr")
    return next((name.rpartition(".")[0] for name in tensors), "")


def _sections(paths: list[str]) -> list[str]:
    """Names of the parts that the rows are shown in: module paths cut to the depth at which none holds most of the rows."""
    depth = 1
    while depth < SECTION_DEPTH:
        cut = [_cut(path, depth) for path in paths]
        if max(map(cut.count, set(cut)), default=0) <= SECTION_SHARE * len(paths):
            break
        depth += 1
    return list(_filled(_cut(path, depth) for path in paths))


def _cut(path: str, depth: int) -> str:
    return ".".join(path.split(".")[:depth])


def _filled(names: Iterator[str]) -> Iterator[str]:
    """Rows of no module stay in the section before them."""
    last = ""
    for name in names:
        last = name or last
        yield last
