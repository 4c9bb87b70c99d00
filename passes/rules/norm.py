"""Normalisations."""

from torch import fx

from billhook.passes.unify import Atom, prod

from .context import Context, Result, TermSize
from .registry import rule


@rule(
    "aten.batch_norm", "aten.native_batch_norm", "aten._native_batch_norm_legit_no_training", "aten.cudnn_batch_norm", "aten.instance_norm"
)
def batch_norm(ctx: Context, node: fx.Node) -> Result:
    """Per channel: nothing mixes channels. Statistics of the input itself are taken over the other dimensions."""
    a = ctx.bind(node)
    x = ctx.dims(a["input"])
    instance = "instance" in str(node.target)
    if a.get("use_input_stats" if instance else "training") or a.get("running_mean") is None:
        for dim in range(2 if instance else 0, len(x)):
            if dim != 1:
                ctx.read(node, a["input"], dim, statistic=True)
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
        ctx.read(node, a["input"], 1, statistic=True, part=member)
    for dim in range(2, len(x)):
        ctx.read(node, a["input"], dim, statistic=True)
    ctx.keep_nonempty(x[1])
    ctx.edit(node, {"num_groups": TermSize(group)})
    return x


@rule("aten._weight_norm", "aten._weight_norm_interface")
def weight_norm(ctx: Context, node: fx.Node) -> Result:
    """Direction v times length g, which has one entry for each index of `dim`: v is squared and summed over the others."""
    a = ctx.bind(node)
    v, g, dim = ctx.dims(a["v"]), ctx.dims(a["g"]), int(a["dim"])
    for i, (mine, length) in enumerate(zip(v, g, strict=True) if len(g) == len(v) else ()):
        if length.size == mine.size:
            ctx.equate(node, mine, length)
        elif i != dim % len(v):
            ctx.read(node, a["v"], i)
            ctx.keep_nonempty(mine)  # the length of nothing is zero, and is divided by
    ctx.role(a["v"], 0, "producer")
    ctx.role(a["v"], 1, "consumer")
    ctx.role(a["g"], dim, "scale")
    return [v, g] if "interface" in str(node.target) else v


@rule("aten.softmax", "aten.log_softmax", "aten._softmax", "aten._log_softmax", "aten._safe_softmax")
def softmax(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    ctx.read(node, a["self"], int(a["dim"]), statistic=True)
    ctx.keep_nonempty(x[int(a["dim"])])
    return x
