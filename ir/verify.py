"""The verifier: what must hold of every Program. It runs between passes, names the node, and repairs nothing."""

from typing import Any, cast

import numpy as np
import torch
from torch import fx

from .dims import extent
from .errors import VerifyError
from .program import Program, SizeOf, state_of, tensor_args


def verify(program: Program) -> None:
    """Raise VerifyError naming the first node, axis or edit that is inconsistent."""
    try:
        program.graph.graph.lint()
    except (RuntimeError, ValueError) as failure:
        raise VerifyError(f"the graph is malformed: {failure}") from failure
    _check_types(program)
    _check_axes(program)
    _check_edits(program)
    _check_reads(program)


def _check_types(program: Program) -> None:
    for node in program.nodes():
        dims = program.types.get(node.name)
        value = node.meta.get("val")
        if dims is None or not isinstance(value, torch.Tensor) or node.op == "output":
            continue
        if tuple(d.size for d in dims) != tuple(value.shape):
            raise VerifyError(f"node {node.name}: its type has sizes {[d.size for d in dims]}, its value has {list(value.shape)}")


def _check_axes(program: Program) -> None:
    names = [axis.name for axis in program.axes]
    if len(set(names)) != len(names):
        raise VerifyError("two axes share a name")
    for axis in program.axes:
        for member in axis.members:
            tensor = state_of(program.graph, member.tensor)
            positions = member.place.positions()
            if positions.shape[0] != axis.size:
                raise VerifyError(f"axis {axis.name}: member {member.tensor} has {positions.shape[0]} indices, the axis {axis.size}")
            if int(positions.max()) >= tensor.shape[member.dim] or len(np.unique(positions)) != positions.size:
                raise VerifyError(f"axis {axis.name}: member {member.tensor} dimension {member.dim} points outside or overlaps")


def _check_edits(program: Program) -> None:
    """At dense sizes every edit must restate what the node says already."""
    for node in program.nodes():
        edit = program.edits.get(node.name)
        if edit is None or edit.op is not None:
            continue
        for said, stated in zip(node.args, edit.args, strict=False):
            if not _agree(said, stated):
                raise VerifyError(f"node {node.name}: its edit states {stated} where the node has {said}")


def _agree(said: Any, stated: Any) -> bool:
    if isinstance(stated, SizeOf):
        return not isinstance(said, int) or said < 0 or said == extent(stated.dim, {}) or said > 2**31
    if isinstance(stated, (list, tuple)) and isinstance(said, (list, tuple)):
        left, right = cast("list[Any]", said), cast("list[Any]", stated)
        return len(left) != len(right) or all(_agree(a, b) for a, b in zip(left, right, strict=True))
    return True


def _check_reads(program: Program) -> None:
    nodes: dict[str, fx.Node] = {n.name: n for n in program.nodes()}
    for read in program.reads:
        node = nodes.get(read.node)
        if node is None or read.position >= len(tensor_args(node)):
            raise VerifyError(f"a read names node {read.node}, argument {read.position}, which does not exist")
