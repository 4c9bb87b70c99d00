"""Pooling, resizing and padding: windows over the trailing dimensions, channels untouched."""

import math
from typing import Any

from torch import fx

from billhook.passes.unify import Atom, Term, cat, prod

from .context import Context, Result, TermSize
from .contraction import SPATIAL
from .registry import rule


def _window_rank(name: str) -> int:
    return next(int(c) for c in reversed(name.split(".")[1]) if c.isdigit())


@rule(
    *(f"aten.{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "lp", "_adaptive_avg") for n in (1, 2, 3)),
    *(f"aten.max_pool{n}d_with_indices" for n in (2, 3)),
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    *(f"aten.upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d", "bicubic2d", "trilinear3d", "linear1d")),
    "aten._upsample_bilinear2d_aa",
    "aten._upsample_bicubic2d_aa",
    "aten._upsample_nearest_exact2d",
    "aten._upsample_nearest_exact1d",
)
def window(ctx: Context, node: fx.Node) -> Result:
    x_node = node.args[0]
    assert isinstance(x_node, fx.Node)
    x = ctx.dims(x_node)
    name = str(node.target).replace("_with_indices", "").replace("_aa", "")
    rank = _window_rank(name)
    ctx.freeze(node, SPATIAL, *x[-rank:])
    value = node.meta["val"]
    shapes = [tuple(v.shape) for v in value] if isinstance(value, (list, tuple)) else [tuple(value.shape)]
    results = [(*x[:-rank], *ctx.positions(node, shape[-rank:])) for shape in shapes]
    return results if isinstance(value, (list, tuple)) else results[0]


@rule(
    "aten.pad", "aten.constant_pad_nd", "aten.reflection_pad1d", "aten.reflection_pad2d", "aten.replication_pad1d", "aten.replication_pad2d"
)
def pad(ctx: Context, node: fx.Node) -> Result:
    """Constant padding adds segments that may themselves be cut; any other mode refers to neighbours, so it freezes."""
    a: dict[str, Any] = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    amounts = [int(p) for p in a.get("pad", a.get("padding", ()))]
    constant = a.get("mode", "constant") == "constant" and "reflection" not in str(node.target) and "replication" not in str(node.target)
    sizes: list[Any] = list(amounts)
    for k in range(len(amounts) // 2):
        low, high = amounts[2 * k], amounts[2 * k + 1]
        dim = len(x) - 1 - k
        if low == high == 0:
            continue
        if not constant or low < 0 or high < 0:
            ctx.freeze(node, "padded or cropped by position", x[dim])
            x[dim] = ctx.fresh([ctx.shape(node)[dim]])[0]
            ctx.freeze(node, "padded or cropped by position", x[dim])
            continue
        ends: list[Term | None] = [Atom(low) if low else None, Atom(high) if high else None]
        x[dim] = cat([t for t in (ends[0], x[dim], ends[1]) if t is not None])
        sizes[2 * k : 2 * k + 2] = [TermSize(t) if t is not None else 0 for t in ends]
    if constant:
        ctx.edit(node, {"pad": sizes})
    return tuple(x)


@rule("aten.pixel_shuffle")
def pixel_shuffle(ctx: Context, node: fx.Node) -> Result:
    """Channels = c * r * r: the r * r sub-pixels stay, c may be cut."""
    a = ctx.bind(node)
    x, r = ctx.dims(a["self"]), int(a["upscale_factor"])
    c, sub = Atom(x[-3].size // (r * r)), Atom(r * r)
    ctx.equate(node, x[-3], prod([c, sub]))
    ctx.freeze(node, "sub-pixels of a pixel shuffle", sub, *x[-2:])
    return (*x[:-3], c, *ctx.positions(node, ctx.shape(node)[-2:]))


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x, r = ctx.dims(a["self"]), int(a["downscale_factor"])
    sub = Atom(r * r)
    ctx.freeze(node, "sub-pixels of a pixel unshuffle", sub, *x[-2:])
    return (*x[:-3], prod([x[-3], sub]), *ctx.positions(node, ctx.shape(node)[-2:]))


@rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sampler(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x, grid = ctx.dims(a["input"]), ctx.dims(a["grid"])
    ctx.freeze(node, SPATIAL, *x[2:], grid[-1])
    ctx.equate(node, x[0], grid[0])
    return (x[0], x[1], *grid[1:-1])


@rule("aten.im2col")
def im2col(ctx: Context, node: fx.Node) -> Result:
    """Channels times the positions of a window; the places of the window in a row."""
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    window = ctx.positions(node, [math.prod(a["kernel_size"])])
    ctx.freeze(node, SPATIAL, *x[-2:])
    ctx.drop(node, *x[-2:])
    return (*x[:-3], prod([x[-3], *window]), *ctx.positions(node, ctx.shape(node)[-1:]))


@rule("aten.col2im")
def col2im(ctx: Context, node: fx.Node) -> Result:
    """The reverse: overlapping windows are added up, channel by channel."""
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    window = ctx.positions(node, [math.prod(a["kernel_size"])])
    channel = Atom(ctx.shape(node)[-3])
    ctx.equate(node, x[-2], prod([channel, *window]))
    ctx.freeze(node, SPATIAL, x[-1])
    return (*x[:-2], channel, *ctx.positions(node, ctx.shape(node)[-2:]))


@rule("aten.unfold")
def unfold(ctx: Context, node: fx.Node) -> Result:
    """Windows along one dimension become a new last one."""
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    dim = int(a["dimension"]) % len(x)
    ctx.freeze(node, SPATIAL, x[dim])
    x[dim] = ctx.positions(node, [ctx.shape(node)[dim]])[0]
    return (*x, *ctx.positions(node, [int(a["size"])]))


@rule("torchvision.roi_align", "torchvision.roi_pool")
def region_pool(ctx: Context, node: fx.Node) -> Result:
    """Regions of interest [count, 5] of feature maps [images, channels, ...]: channels pass through."""
    a = ctx.bind(node)
    x, regions = ctx.dims(a["input"]), ctx.dims(a["rois"])
    ctx.freeze(node, "images are looked up by number", x[0])
    ctx.freeze(node, "corners of a region", regions[1])
    ctx.freeze(node, SPATIAL, *x[2:])
    return (regions[0], x[1], *ctx.positions(node, ctx.shape(node)[-2:]))
