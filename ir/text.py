"""The text form of a Program: one line a node, with the type of every dimension. Deterministic, so it can be compared and hashed."""

from typing import Any

import torch
from torch import fx

from .axis import Axis
from .dims import Dim, Leaf, Product
from .program import Program, SizeOf

DTYPES = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "bool": "bool",
    "uint8": "u8",
    "int8": "i8",
}


def format_program(program: Program) -> str:
    """The whole program: inputs, state, calls, outputs, then the axes."""
    lines = [f"program ({program.origin}) {{"]
    lines += [f"  {_node_line(program, node)}" for node in program.nodes() if node.op != "get_attr" or node.users]
    lines.append("}")
    if program.axes:
        lines.append(f"axes ({sum(a.prunable for a in program.axes)} of {len(program.axes)} prunable) {{")
        lines += [f"  {format_axis(axis)}" for axis in program.axes]
        lines.append("}")
    return "\n".join(lines)


def format_axis(axis: Axis) -> str:
    """One line: name, size, members, state."""
    tensors = len({m.tensor for m in axis.members})
    flags = [*(["mixing"] if axis.mixing else []), *(["additive"] if axis.additive else [])]
    state = f"frozen: {axis.frozen_because[0]}" if axis.frozen_because else "prunable"
    return f"{axis.name}: {axis.size}, {len(axis.members)} places in {tensors} tensors, {', '.join([*flags, state])}"


def coverage(program: Program) -> str:
    """How much of the model's parameters lies on axes that can be cut, in one line.

    A parameter tensor counts as prunable if at least one prunable axis has it as a member.
    """
    prunable = {member.tensor for axis in program.axes if axis.prunable for member in axis.members}
    sizes = {name: parameter.numel() for name, parameter in program.graph.named_parameters()}
    total = sum(sizes.values())
    share = sum(size for name, size in sizes.items() if name in prunable) / total if total else 0.0
    free = sum(axis.prunable for axis in program.axes)
    return f"{free} of {len(program.axes)} axes can be cut; they reach {share:.1%} of {total:,} parameters"


def format_dim(dim: Dim) -> str:
    """A dimension's type: axes by name and size, plain extents by number, * for products, ++ for concatenations."""
    if isinstance(dim, Leaf):
        return f"{dim.name}:{dim.size}" if dim.name else str(dim.size)
    if isinstance(dim, Product):
        return "*".join(f if "++" not in (f := format_dim(p)) else f"({f})" for p in dim.factors)
    return " ++ ".join(format_dim(p) for p in dim.segments)


def _node_line(program: Program, node: fx.Node) -> str:
    if node.op == "output":
        return f"return {_argument(node.args[0])}"
    head = f"%{node.name}: {_value_type(program, node)} = "
    if node.op == "placeholder":
        return head + "input"
    if node.op == "get_attr":
        return head + f"state {node.target}"
    edit = program.edits.get(node.name)
    args: list[Any] = list(edit.args if edit and edit.op is None else node.args)
    kwargs = dict(edit.kwargs) if edit and edit.op is None else dict(node.kwargs)
    shown = [_argument(a) for a in args] + [f"{k}={_argument(v)}" for k, v in kwargs.items() if v is not None]
    return head + f"{node.target}({', '.join(shown)})"


def _value_type(program: Program, node: fx.Node) -> str:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return f"{len(value)} values" if isinstance(value, (list, tuple)) else "scalar"  # pyright: ignore[reportUnknownArgumentType]
    name = str(value.dtype).removeprefix("torch.")
    dims = program.types.get(node.name)
    shape = [format_dim(d) for d in dims] if dims else [str(s) for s in value.shape]
    return f"{DTYPES.get(name, name)}[{', '.join(shape)}]"


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return f"%{value.name}"
    if isinstance(value, SizeOf):
        return f"|{format_dim(value.dim)}|"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_argument(v)}" for k, v in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_argument(v) for v in value) + "]"  # pyright: ignore[reportUnknownVariableType]
    return str(value)
