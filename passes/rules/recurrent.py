"""Recurrent layers: every layer and direction shares one hidden axis, because they share one tensor of initial states."""

from typing import Any

from torch import fx

from billhook.passes.unify import Atom, Term, cat, prod

from .context import Context, Result
from .contraction import unsolved
from .registry import rule

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@rule(*(f"aten.{kind}" for kind in GATES))
def recurrent(ctx: Context, node: fx.Node) -> Result:
    """Weights [gates * hidden, inputs], [gates * hidden, state], biases [gates * hidden], projection [state, hidden].

    The state is the hidden vector, or its projection. The operator infers all widths from its tensors. Masks act on the
    columns of the weights, because the recurrence reads the state inside the operator.
    """
    a = ctx.bind(node)
    if "input" not in a or "hx" not in a:
        return unsolved(ctx, node, "a recurrent layer over packed sequences")
    kind = str(node.target).split(".")[1]
    x = ctx.dims(a["input"])
    initial = [ctx.dims(v) for v in (a["hx"] if isinstance(a["hx"], (list, tuple)) else [a["hx"]])]
    state, hidden = initial[0][-1], initial[-1][-1]
    directions = 2 if a["bidirectional"] else 1
    per_cell = len(a["params"]) // (int(a["num_layers"]) * directions)
    if per_cell <= (4 if a["has_biases"] else 2):
        ctx.equate(node, state, hidden)
    else:
        ctx.freeze(node, "the operator knows a projected state by its being narrower than the hidden vector", hidden)
    below: Term = x[-1]
    for layer in range(int(a["num_layers"])):
        for direction in range(directions):
            at = (layer * directions + direction) * per_cell
            _cell(ctx, node, a["params"][at : at + per_cell], below, state, hidden, GATES[kind], bool(a["has_biases"]))
        below = cat([state] * directions)
    ctx.keep_nonempty(x[-1], state, hidden)
    _freeze_layers(ctx, node, initial, x, batch_first=bool(a["batch_first"]))
    return [(*x[:-1], below), *initial]


def _cell(ctx: Context, node: fx.Node, params: Any, below: Term, state: Term, hidden: Term, gates: int, biased: bool) -> None:
    wide = hidden
    if gates > 1:
        gate = Atom(gates)
        ctx.freeze(node, "gates of a recurrent layer", gate)
        wide = prod([gate, hidden])
    columns = [below, state]
    for value, inner in zip(params[:2], columns, strict=True):
        weight = ctx.dims(value)
        ctx.equate(node, weight[0], wide)
        ctx.equate(node, weight[1], inner)
        ctx.read(node, value, 1)
        ctx.role(value, 0, "producer")
        ctx.role(value, 1, "consumer")
    for value in params[2:4] if biased else ():
        ctx.equate(node, ctx.dims(value)[0], wide)
        ctx.role(value, 0, "producer")
    if len(params) > (4 if biased else 2):
        projection = ctx.dims(params[-1])
        ctx.equate(node, projection[0], state)
        ctx.equate(node, projection[1], hidden)
        ctx.read(node, params[-1], 1)
        ctx.role(params[-1], 0, "producer")
        ctx.role(params[-1], 1, "consumer")


def _freeze_layers(ctx: Context, node: fx.Node, initial: list[tuple[Term, ...]], x: tuple[Term, ...], *, batch_first: bool) -> None:
    """Layers and steps are taken in order; the batch runs through."""
    batched = len(x) == 3
    steps = x[1] if batched and batch_first else x[0]
    ctx.freeze(node, "steps of a recurrent layer", steps)
    for dims in initial:
        ctx.freeze(node, "layers of a recurrent layer", dims[0])
        if batched:
            ctx.equate(node, dims[1], x[0] if batch_first else x[1])
