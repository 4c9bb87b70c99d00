"""Normalisations."""

from torch import fx

from ..unify import Atom, prod
from .context import Context, Result, TermSize
from .registry import rule


@rule("aten.batch_norm", "aten.native_batch_norm", "aten._native_batch_norm_legit_no_training", "aten.cudnn_batch_norm", "aten.instance_norm")
def batch_norm(ctx: Context, node: fx.Node) -> Result:
    """Statistics per channel: nothing mixes channels."""
    a = ctx.bind(node)
    x = ctx.dims(a["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = a.get(name)
        if value is not None:
            ctx.equate(node, x[1], ctx.dims(value)[0])
            ctx.role(value, 0, "scale")
    first = node.meta.get("val")
    if isinstance(first, (list, tuple)):
        return [x, *(ctx.fresh(tuple(v.shape)) for v in first[1:])]
    return x


@rule("aten.layer_norm", "aten.rms_norm", "aten.native_layer_norm")
def layer_norm(ctx: Context, node: fx.Node) -> Result:
    """A statistic over the trailing dimensions: removal changes what remains."""
    a = ctx.bind(node)
    x = ctx.dims(a["input"])
    count = len(a["normalized_shape"])
    tail = x[len(x) - count :]
    for name in ("weight", "bias"):
        value = a.get(name)
        if value is not None:
            for dim, (term, own) in enumerate(zip(tail, ctx.dims(value), strict=True)):
                ctx.equate(node, term, own)
                ctx.role(value, dim, "scale")
    for dim in range(len(x) - count, len(x)):
        ctx.read(node, a["input"], dim, statistic=True)
    ctx.keep_nonempty(*tail)
    ctx.edit(node, {"normalized_shape": ctx.sizes(tail)})
    first = node.meta.get("val")
    if isinstance(first, (list, tuple)):
        return [x, *(ctx.fresh(tuple(v.shape)) for v in first[1:])]
    return x


@rule("aten.group_norm")
def group_norm(ctx: Context, node: fx.Node) -> Result:
    """Channels = groups * members: whole groups come off freely, members of a group mix."""
    a = ctx.bind(node)
    x = ctx.dims(a["input"])
    group, member = Atom(int(a["num_groups"])), Atom(x[1].size // int(a["num_groups"]))
    ctx.equate(node, x[1], prod([group, member]))
    for name in ("weight", "bias"):
        value = a.get(name)
        if value is not None:
            ctx.equate(node, x[1], ctx.dims(value)[0])
            ctx.role(value, 0, "scale")
    if member.size > 1:
        ctx.read(node, a["input"], 1, statistic=True)
    ctx.keep_nonempty(x[1])
    ctx.edit(node, {"num_groups": TermSize(group)})
    return x


@rule("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax", "aten._safe_softmax")
def softmax(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    ctx.read(node, a["self"], int(a["dim"]), statistic=True)
    ctx.keep_nonempty(x[int(a["dim"])])
    return x
