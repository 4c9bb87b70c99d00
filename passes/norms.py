"""Normalisations in the graph: which nodes they are, and the names of the state that they read."""

from typing import Any

from torch import fx

from billhook.ir.program import Program

NORMS = frozenset(
    {
        "aten.batch_norm",
        "aten.native_batch_norm",
        "aten._native_batch_norm_legit_no_training",
        "aten.cudnn_batch_norm",
        "aten.instance_norm",
        "aten.layer_norm",
        "aten.native_layer_norm",
        "aten.group_norm",
        "aten.native_group_norm",
        "aten.rms_norm",
    }
)


def operator(node: fx.Node) -> str:
    """`aten.batch_norm` for a call of `aten.batch_norm.default`; empty for what is no ATen call."""
    return str(node.target).rsplit(".", 1)[0] if hasattr(node.target, "_schema") else ""


def argument(node: fx.Node, name: str) -> Any:
    """What an ATen call passes for the argument with this name in its schema, or None."""
    schema = getattr(node.target, "_schema", None)
    for i, expected in enumerate(schema.arguments if schema is not None else ()):
        if expected.name == name and i < len(node.args):
            return node.args[i]
    return node.kwargs.get(name)


def state_name(node: fx.Node, name: str) -> str | None:
    """The qualified name of the state that is passed for an argument, or None where it is computed or absent."""
    value = argument(node, name)
    return str(value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None


def affine_names(program: Program) -> frozenset[str]:
    """Names of the weights and biases of all normalisations in the program."""
    norms = [node for node in program.nodes() if operator(node) in NORMS]
    names = [state_name(node, part) for node in norms for part in ("weight", "bias")]
    return frozenset(name for name in names if name is not None)


def scale_names(program: Program) -> frozenset[str]:
    """Names of the weights (not the biases) of all normalisations in the program."""
    names = (state_name(node, "weight") for node in program.nodes() if operator(node) in NORMS)
    return frozenset(name for name in names if name is not None)
