"""An axis that a divisor sums over keeps an index: the sum over nothing is zero, and dividing by it gives no number.

`x / x.norm()` and linear attention's `q k v / q k 1` are such. A divisor that something is added to, or that is held above a
bound, is never zero and ends the search.
"""

from collections.abc import Iterator

from torch import fx

from billhook.ir.program import operator_of, tensor_args
from billhook.passes.rules import Context
from billhook.passes.rules.context import PendingRead
from billhook.passes.unify import atoms

# Zero stays zero: in any tensor argument.
_ZERO_STAYS = frozenset(
    f"aten.{name}"
    for name in (
        *("mul", "neg", "abs", "sqrt", "square", "relu", "div", "clone", "contiguous", "to", "_to_copy", "alias", "type_as"),
        *("expand", "expand_as", "view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "permute", "transpose", "t", "slice", "select"),
        *(
            "sum",
            "mean",
            "linalg_vector_norm",
            "norm",
            "matmul",
            "mm",
            "bmm",
            "mv",
            "dot",
            "einsum",
            "linear",
            "conv1d",
            "conv2d",
            "conv3d",
        ),
    )
)
_DIVISORS = {"aten.div": 1, "aten.true_divide": 1, "aten.reciprocal": 0, "aten.rsqrt": 0, "aten.log": 0}
_BIASED = {"aten.linear": 2, "aten.conv1d": 2, "aten.conv2d": 2, "aten.conv3d": 2}


def keep_divisors(ctx: Context) -> None:
    """Mark the axes that divisors sum over. Cost: every node is visited once at most."""
    reads: dict[str, list[PendingRead]] = {}
    for pending in ctx.reads:
        reads.setdefault(pending.read.node, []).append(pending)
    for node in _zero_with_their_sums(ctx):
        for pending in reads.get(node.name, ()):
            term = pending.part or ctx.dims(tensor_args(node)[pending.read.position])[pending.read.dim]
            for atom in atoms(term):
                atom.marks.add("nonempty")


def _zero_with_their_sums(ctx: Context) -> Iterator[fx.Node]:
    """Nodes that a divisor is computed from, each zero if one of its arguments is, or if it sums over nothing."""
    stack = [divisor for node in ctx.terms for divisor in _divisor(node)]
    seen: set[fx.Node] = set()
    while stack:
        node = stack.pop()
        if node not in seen and node.op == "call_function" and _zero_stays(node):
            seen.add(node)
            yield node
            stack.extend(tensor_args(node))


def _divisor(node: fx.Node) -> list[fx.Node]:
    position = _DIVISORS.get(operator_of(node))
    found = node.args[position] if position is not None and position < len(node.args) else None
    return [found] if isinstance(found, fx.Node) else []


def _zero_stays(node: fx.Node) -> bool:
    name = operator_of(node)
    if name == "aten.pow":
        return len(node.args) > 1 and isinstance(node.args[1], (int, float)) and node.args[1] > 0
    bias = _BIASED.get(name)
    return name in _ZERO_STAYS and (bias is None or len(node.args) <= bias or node.args[bias] is None)
