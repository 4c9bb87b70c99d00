"""Values that name indices of an axis by number: made by operators that pick, followed through moves, used by look-ups.

Types say what a dimension runs over; this says what a value of integers points to. After a cut an operator that picks among
the indices that are left tells their new numbers, so that whatever is looked up by them is the same axis again. The order of
the kept indices stays, so sorting by such numbers stays too. Anything else that computes with them would see the difference,
and freezes the axis.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from billhook.ir.program import tensor_args
from billhook.passes.unify import Atom, Prod, Term, mark, resolve

from .context import Context, Result, TermSize
from .registry import op_name, rule

MOVES = frozenset(
    f"aten.{name}"
    for name in """
view reshape _unsafe_view flatten unflatten unsqueeze squeeze permute transpose t swapaxes movedim moveaxis expand expand_as repeat
repeat_interleave cat concat concatenate stack slice narrow select unbind split chunk split_with_sizes tensor_split index index_select
gather take_along_dim flip roll to _to_copy type_as contiguous clone detach alias lift_fresh_copy
""".split()  # noqa: SIM905
)
CONVERSIONS = frozenset({"aten.to", "aten._to_copy", "aten.contiguous", "aten.clone", "aten.detach", "aten.alias"})
BLIND = ("aten.zeros_like", "aten.ones_like", "aten.full_like", "aten.empty_like", "aten.new_", "aten.sym_size", "aten._assert")
EXACT = frozenset({torch.int16, torch.int32, torch.int64, torch.float32, torch.float64})  # they hold every number of an index


def follow_numbers(ctx: Context, node: fx.Node) -> None:
    """Say what the node's result points to, or freeze what it computes with. Runs after the node's own rule."""
    if node.target is operator.getitem:
        named = ctx.pointers.get(cast("tuple[fx.Node, int]", node.args))
        if named is not None:
            ctx.point(node, named)
        return
    name = op_name(node.target)
    values = tensor_args(node)
    for value in dict.fromkeys(values):
        term = ctx.pointed(value)
        if term is None or name.startswith(BLIND) or ((node, value) in ctx.looked and values.count(value) == 1):
            continue
        if name == "aten.sort":
            ctx.point(node, term, 0)
        elif name in MOVES and _only_moved(ctx, node, value):
            _pass_on(ctx, node, term)
        else:
            ctx.freeze(node, "its indices are computed with by number", term)


def _only_moved(ctx: Context, node: fx.Node, value: fx.Node) -> bool:
    """Whether the value is what is moved (not what it is moved by), alone or with others of its kind, into a type that holds it."""
    moved: Any = node.args[0] if node.args else None
    results = node.meta["val"] if isinstance(node.meta["val"], (list, tuple)) else [node.meta["val"]]
    if not all(r.dtype in EXACT for r in results):
        return False
    return moved is value or (isinstance(moved, Sequence) and all(ctx.pointed(v) is not None for v in moved))


def _pass_on(ctx: Context, node: fx.Node, term: Term) -> None:
    known = ctx.pointed(node)
    if known is not None:
        ctx.equate(node, known, term)
    ctx.point(node, term)
    if isinstance(node.meta["val"], (list, tuple)):
        for i in range(len(node.meta["val"])):
            ctx.point(node, term, i)


def pick(ctx: Context, node: fx.Node, value: fx.Node, dim: int, count: int, *, largest: bool) -> bool:
    """The node picks `count` indices of a dimension by their values: the reference lets removed ones lose. False where it cannot."""
    term = ctx.dims(value)[dim]
    if not value.meta["val"].dtype.is_floating_point or count >= term.size:
        return False
    ctx.read(node, value, dim, statistic=True, fill=-math.inf if largest else math.inf)
    mark(term, "mixing")
    ctx.keep_nonempty(term)
    ctx.keep_at_least(term, count)
    return True


@rule("aten.topk")
def topk(ctx: Context, node: fx.Node) -> Result:
    """Values and numbers of the k best along a dimension."""
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    if not x:
        return [(), ()]
    dim = int(a["dim"]) % len(x)
    if pick(ctx, node, a["self"], dim, int(a["k"]), largest=bool(a["largest"])):
        ctx.point(node, x[dim], 1)
    else:
        ctx.freeze(node, "all of them are picked" if int(a["k"]) >= x[dim].size else "picked by whole numbers", x[dim])
    results = [(*x[:dim], *ctx.fresh([int(a["k"])]), *x[dim + 1 :]) for _ in range(2)]
    ctx.freeze(node, "as many as this operator picks", *(dims[dim] for dims in results))
    ctx.equate(node, results[0][dim], results[1][dim])
    return results


@rule("aten.one_hot")
def one_hot(ctx: Context, node: fx.Node) -> Result:
    """Numbers become a dimension that is the axis they point to."""
    a = ctx.bind(node)
    out = ctx.fresh(ctx.shape(node)[-1:])[0]
    term = ctx.pointed(a["self"])
    if term is not None and int(a["num_classes"]) == term.size:
        ctx.look_up(node, a["self"], out)
        ctx.edit(node, {"num_classes": TermSize(out)})
    else:
        ctx.freeze(node, "values depend on position", out)
    return (*ctx.dims(a["self"]), out)


@rule("aten.histc")
def count(ctx: Context, node: fx.Node) -> Result:
    """How often each number occurs, where every bin holds one number."""
    a = ctx.bind(node)
    bins, low, high = int(a["bins"]), float(a["min"]), float(a["max"])
    out = ctx.fresh([bins])[0]
    term = ctx.pointed(a["self"])
    if term is not None and term.size == bins and low == 0.0 and high in (bins - 1, bins):
        ctx.look_up(node, a["self"], out)
        size = TermSize(out)  # as upper end it puts whole numbers into the same bins as the largest number does
        ctx.edit(node, {"self": a["self"], "bins": size, "min": 0, "max": size}, op=torch.ops.aten.histc.default)
    else:
        ctx.freeze(node, "values depend on position", out)
    return (out,)


def totals(value: fx.Node) -> bool:
    """Whether a vector holds running totals, perhaps in another element type."""
    while op_name(value.target) in CONVERSIONS and isinstance(value.args[0], fx.Node):
        value = value.args[0]
    return op_name(value.target) == "aten.cumsum"


def share_floor(term: Term, need: int, least: dict[int, int]) -> None:
    """Divide a floor of a dimension among its axes, largest first, so that keeping each one's part keeps `need` indices."""
    here = resolve(term)
    if isinstance(here, Atom):
        least[id(here)] = max(least.get(id(here), 1), min(need, here.size))
        return
    for part in sorted(map(resolve, here.parts), key=lambda p: -p.size):
        mine = min(part.size, need)
        share_floor(part, mine, least)
        need = -(-need // mine) if isinstance(here, Prod) else max(1, need - mine)
