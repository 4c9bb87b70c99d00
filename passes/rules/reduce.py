"""Reductions, and scans along a dimension."""

import math
from typing import Any

import torch
from torch import fx

from billhook.passes.unify import Term

from .context import Context, Result
from .numbers import pick
from .registry import rule

SUMS = ("sum", "mean", "linalg_vector_norm", "norm", "nansum")
STATISTICS = ("amax", "amin", "aminmax", "var", "std", "prod", "any", "all", "logsumexp", "var_mean", "std_mean")
INDEXED = ("max", "min", "argmax", "argmin", "median", "mode")  # they also tell where
PICKS = INDEXED[:4]


@rule(*(f"aten.{name}" for name in (*SUMS, *STATISTICS, *INDEXED)))
def reduce(ctx: Context, node: fx.Node) -> Result:
    """Sums ignore zeroed indices; an average keeps its dense divisor; other statistics are taken over what is kept.

    A result that tells the position of the largest or smallest names it by number; any other that does freezes its dimension.
    """
    a = ctx.bind(node)
    name = str(node.target).split(".")[1]
    x_node: fx.Node = a["self"] if "self" in a else a["input"]
    if isinstance(a.get("other"), fx.Node):
        return ctx.broadcast(node, [x_node, a["other"]], ctx.shape(node))
    x = ctx.dims(x_node)
    dims = _dims(a, len(x))
    for dim in dims:
        if name in SUMS and _sums_powers(a):
            ctx.read(node, x_node, dim)
        elif name not in INDEXED:
            ctx.read(node, x_node, dim, statistic=True)
        elif name in PICKS and a.get("dim") is not None and pick(ctx, node, x_node, dim, 1, largest="max" in name):
            ctx.point(node, x[dim], None if "arg" in name else 1)
        else:
            ctx.freeze(node, f"{name} over this dimension", x[dim])
            ctx.keep_nonempty(x[dim])
    if name == "mean":
        _keep_divisor(ctx, node, a, x, dims)
    keep = bool(a.get("keepdim"))
    out: list[Term] = []
    for i, term in enumerate(x):
        if i not in dims:
            out.append(term)
        elif keep:
            out.extend(ctx.fresh([1]))
    value = node.meta["val"]
    return [tuple(out) for _ in value] if isinstance(value, (list, tuple)) else tuple(out)


def _sums_powers(a: dict[str, Any]) -> bool:
    """Whether a norm's order (if it is a norm) is one for which zeros contribute nothing."""
    order = a.get("ord", a.get("p", 2))
    return order is None or 0 < float(order) < float("inf")


def _dims(a: dict[str, Any], rank: int) -> list[int]:
    dim = a.get("dim")
    if dim is None or dim == []:
        return list(range(rank))
    return [int(d) % rank for d in (dim if isinstance(dim, (list, tuple)) else [dim])]


def _keep_divisor(ctx: Context, node: fx.Node, a: dict[str, Any], x: tuple[Term, ...], dims: list[int]) -> None:
    count = 1
    for dim in dims:
        count *= x[dim].size
    changes = {"self": a["self"], "dim": dims, "keepdim": bool(a.get("keepdim"))}
    ctx.edit(node, changes, op=torch.ops.aten.sum.dim_IntList, scale=1.0 / count, when=tuple(x[d] for d in dims))


@rule("aten.cumsum", "aten.cumprod", "aten.logcumsumexp")
def scan(ctx: Context, node: fx.Node) -> Result:
    """Running totals: what is removed adds nothing (multiplies by one), and the totals at the others stay."""
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    if x:
        fill = {"cumsum": None, "cumprod": 1.0, "logcumsumexp": -math.inf}[str(node.target).split(".")[1]]
        ctx.read(node, a["self"], int(a["dim"]), fill=fill)
        ctx.keep_nonempty(x[int(a["dim"])])
    return x


@rule("aten.sort", "aten.argsort", "aten.kthvalue")
def order(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    dim = int(a["dim"] if a.get("dim") is not None else -1) % max(1, len(x))
    ctx.freeze(node, "order along this dimension matters", x[dim])
    value = node.meta["val"]
    shapes = [tuple(v.shape) for v in value] if isinstance(value, (list, tuple)) else [tuple(value.shape)]
    results: list[tuple[Term, ...]] = []
    for shape in shapes:
        new = ctx.fresh([shape[dim]])[0] if x else None
        if new is not None:
            ctx.freeze(node, "order along this dimension matters", new)
            results.append((*x[:dim], new, *x[dim + 1 :]))
        else:
            results.append(())
    return results if isinstance(value, (list, tuple)) else results[0]
