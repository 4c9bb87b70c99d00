"""Fused attention."""

import math

from torch import fx

from billhook.passes.unify import Atom, prod

from .context import Context, Result
from .registry import rule


@rule("aten.scaled_dot_product_attention", "aten._scaled_dot_product_flash_attention_for_cpu")
def attention(ctx: Context, node: fx.Node) -> Result:
    """Query [..., heads, L, e], key [..., heads, S, e], value [..., heads, S, v] -> [..., heads, L, v].

    The operator recomputes 1/sqrt(e) from the width that it sees, so the dense value is made explicit. With grouped
    queries, query heads = key heads * repeats.
    """
    a = ctx.bind(node)
    q, k, v = ctx.dims(a["query"]), ctx.dims(a["key"]), ctx.dims(a["value"])
    grouped = bool(a.get("enable_gqa")) and q[-3].size != k[-3].size
    ctx.equate(node, q[-1], k[-1])
    ctx.equate(node, k[-2], v[-2])
    if grouped:
        ctx.equate(node, q[-3], prod([k[-3], Atom(q[-3].size // k[-3].size)]))
        ctx.equate(node, k[-3], v[-3])
    for i in range(3 if not grouped else 4, len(q) + 1):
        if q[-i].size == k[-i].size:
            ctx.equate(node, q[-i], k[-i])
        if q[-i].size == v[-i].size:
            ctx.equate(node, q[-i], v[-i])
    if a["is_causal"]:
        ctx.freeze(node, "causal masks depend on position", q[-2], k[-2])
    ctx.read(node, a["query"], -1)
    ctx.read(node, a["key"], -2, statistic=True)
    ctx.keep_nonempty(q[-1], k[-2])
    result = (*q[:-1], v[-1])
    if a["attn_mask"] is not None:
        mask = ctx.dims(a["attn_mask"])
        for i, term in enumerate(reversed(mask), 1):
            target = (*q[:-1], k[-2])[-i]
            if term.size == target.size:
                ctx.equate(node, target, term)
    scale = a["scale"] if a["scale"] is not None else 1.0 / math.sqrt(q[-1].size)
    ctx.edit(node, {"scale": float(scale)}, when=(q[-1],))
    return result
