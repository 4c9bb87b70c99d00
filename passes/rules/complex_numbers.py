"""Complex numbers: the two parts of each stay together; every other dimension passes through (rotary positions of Llama 4)."""

from torch import fx

from billhook.passes.unify import Atom

from .context import Context, Result
from .registry import rule

_PARTS = "the real and the imaginary part"


@rule("aten.view_as_complex")
def view_as_complex(ctx: Context, node: fx.Node) -> Result:
    *rest, parts = ctx.dims(ctx.bind(node)["self"])
    ctx.freeze(node, _PARTS, parts)
    return tuple(rest)


@rule("aten.view_as_real")
def view_as_real(ctx: Context, node: fx.Node) -> Result:
    parts = Atom(2)
    ctx.freeze(node, _PARTS, parts)
    return (*ctx.dims(ctx.bind(node)["self"]), parts)
