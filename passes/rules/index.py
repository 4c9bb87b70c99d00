"""Look-ups by index tensors, and tensors made from nothing."""

from typing import Any

import torch
from torch import fx

from billhook.ir.program import tensor_args
from billhook.passes.unify import Atom, Term

from .context import Context, Result
from .contraction import unsolved
from .registry import rule


@rule("aten.embedding")
def embedding(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    weight, indices = ctx.dims(a["weight"]), ctx.dims(a["indices"])
    _look_up(ctx, node, a["indices"], weight[0], "rows are looked up by number")
    ctx.role(a["weight"], 1, "producer")
    return (*indices, weight[1])


@rule("aten.index_select")
def index_select(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    dim = a["dim"] % len(x)
    _look_up(ctx, node, a["index"], x[dim], "indexed by data")
    index = ctx.dims(a["index"])
    x[dim] = index[0] if index else Atom(1)
    return tuple(x)


@rule("aten.gather", "aten.take_along_dim", "aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def gather(ctx: Context, node: fx.Node) -> Result:
    """Picked (or placed) by data along one dimension; along the others, index i meets index i where the sizes are equal."""
    a = ctx.bind(node)
    numbers = a["index"] if "index" in a else a["indices"]
    x, index = ctx.dims(a["self"]), ctx.dims(numbers)
    if a["dim"] is None or len(x) != len(index):
        return unsolved(ctx, node, "picked by data from the flattened value")
    along = int(a["dim"]) % max(1, len(x))
    places = "scatter" in str(node.target)
    known = _look_up(ctx, node, numbers, x[along], "indexed by data", drop=not places) if x else False
    others = [index, *([ctx.dims(a["src"])] if isinstance(a.get("src"), fx.Node) else [])]
    for i, term in enumerate(x):
        for other in others:
            if i == along:
                ctx.freeze(node, "indexed by data", other[i], *([] if known else [term]))
            elif other[i].size == term.size:
                ctx.equate(node, term, other[i])
            else:
                ctx.freeze(node, "indexed by data", term, other[i])
    return x if places else index


@rule("aten.index")
def index(ctx: Context, node: fx.Node) -> Result:
    """Dimensions that are indexed are frozen; the index's own dimensions take their place."""
    a = ctx.bind(node)
    x: tuple[Term, ...] = ctx.dims(a["self"])
    indices: list[Any] = list(a["indices"])
    indices += [None] * (len(x) - len(indices))
    used = [i for i, v in enumerate(indices) if v is not None]
    if any(str(indices[i].meta["val"].dtype) == "torch.bool" for i in used):
        return unsolved(ctx, node, "indexed by a boolean mask")
    for i in used:
        _look_up(ctx, node, indices[i], x[i], "indexed by data")
    shape = ctx.shape(node)
    count = len(shape) - (len(x) - len(used))
    adjacent = used == list(range(used[0], used[-1] + 1))
    at = used[0] if adjacent else 0
    inner = ctx.broadcast(node, [indices[i] for i in used], shape[at : at + count])
    rest = [t for i, t in enumerate(x) if i not in used]
    return (*rest[:at], *inner, *rest[at:])


@rule("aten.index_put")
def index_put(ctx: Context, node: fx.Node) -> Result:
    """Values are written where the indices say; along the dimensions that are not indexed, index i meets index i."""
    a = ctx.bind(node)
    x: tuple[Term, ...] = ctx.dims(a["self"])
    indices: list[Any] = list(a["indices"])
    used = [i for i, v in enumerate(indices) if v is not None]
    if any(str(indices[i].meta["val"].dtype) == "torch.bool" for i in used):
        return unsolved(ctx, node, "written through a boolean mask")
    shape = torch.broadcast_shapes(*(ctx.shape(indices[i]) for i in used))
    inner = ctx.broadcast(node, [indices[i] for i in used], shape)
    for i in used:
        _look_up(ctx, node, indices[i], x[i], "written where data says", drop=False)
    ctx.freeze(node, "written where data says", *inner)
    rest = [t for i, t in enumerate(x) if i not in used]
    at = used[0] if used == list(range(used[0], used[-1] + 1)) else 0
    place = [*rest[:at], *inner, *rest[at:]]
    for mine, theirs in zip(reversed(ctx.dims(a["values"])), reversed(place), strict=False):
        if mine.size == theirs.size:
            ctx.equate(node, mine, theirs)
    return x


@rule("aten.index_add", "aten.index_copy")
def index_add(ctx: Context, node: fx.Node) -> Result:
    """Slices are added where the indices say; along the other dimensions index i meets index i."""
    a = ctx.bind(node)
    x, source, dim = ctx.dims(a["self"]), ctx.dims(a["source"]), int(a["dim"])
    if len(x) != len(source):
        return unsolved(ctx, node, "written where data says")
    for i, (mine, theirs) in enumerate(zip(x, source, strict=True)):
        if i != dim % len(x):
            ctx.equate(node, mine, theirs)
    _look_up(ctx, node, a["index"], x[dim], "written where data says", drop=False)
    ctx.freeze(node, "written where data says", source[dim], *ctx.dims(a["index"]))
    return x


def _look_up(ctx: Context, node: fx.Node, numbers: fx.Node, term: Term, otherwise: str, *, drop: bool = True) -> bool:
    """A dimension indexed by a value: the axis that the value's numbers name, or frozen. drop: the result lacks it."""
    known = ctx.look_up(node, numbers, term)
    if not known:
        ctx.freeze(node, otherwise, term)
    elif drop:
        ctx.drop(node, term)
    return known


@rule("aten.nonzero", "aten.nonzero_numpy", "aten.masked_select", "aten.unique_consecutive", "aten._unique2", "torchvision.nms")
def found_by_data(ctx: Context, node: fx.Node) -> Result:
    return unsolved(ctx, node, "how many there are depends on data")


@rule(
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.empty",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_full",
    "aten.new_empty",
    "aten.scalar_tensor",
)
def constant_fill(ctx: Context, node: fx.Node) -> Result:
    """The same value everywhere: the shape simply follows whatever the result is combined with."""
    out = ctx.fresh(ctx.shape(node))
    for like in tensor_args(node):
        ctx.drop(node, *ctx.dims(like))  # only its element type is looked at
    if "scalar_tensor" not in str(node.target):
        ctx.edit(node, {"size": ctx.sizes(out)})
    return out


@rule(
    "aten.arange",
    "aten.linspace",
    "aten.eye",
    "aten.tril_indices",
    "aten.triu_indices",
    "aten.rand",
    "aten.randn",
    "aten.hann_window",
)
def ramp(ctx: Context, node: fx.Node) -> Result:
    out = ctx.fresh(ctx.shape(node))
    ctx.freeze(node, "values depend on position", *out)
    return out


@rule("aten.tril", "aten.triu")
def triangle(ctx: Context, node: fx.Node) -> Result:
    value = node.args[0]
    assert isinstance(value, fx.Node)
    x = ctx.dims(value)
    ctx.freeze(node, "values depend on position", x[-1], x[-2])
    return x


@rule("aten.meshgrid", "aten.broadcast_tensors")
def meshgrid(ctx: Context, node: fx.Node) -> Result:
    """The results share their dimensions; the vectors of a grid vary along one of them each."""
    values = node.args[0]
    assert isinstance(values, (list, tuple))
    shape = tuple(node.meta["val"][0].shape)
    if "broadcast_tensors" in str(node.target):
        terms = ctx.broadcast(node, [v for v in values if isinstance(v, fx.Node)], shape)
        return [terms for _ in values]
    swapped = node.kwargs.get("indexing") == "xy" or (len(node.args) > 1 and node.args[1] == "xy")
    terms_list: list[Term] = []
    for v in values:
        assert isinstance(v, fx.Node)
        terms_list.append(ctx.dims(v)[0] if ctx.dims(v) else Atom(1))
    if swapped and len(terms_list) > 1:
        terms_list[0], terms_list[1] = terms_list[1], terms_list[0]
    return [tuple(terms_list) for _ in values]


@rule("aten.sym_size", "aten._assert_tensor_metadata", "aten._assert_async", "aten._assert_scalar", "aten.item", "aten._local_scalar_dense")
def no_tensor(ctx: Context, node: fx.Node) -> Result:
    return ()
