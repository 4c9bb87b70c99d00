"""Operators that move dimensions and indices about: views, permutations, concatenations, slices."""

from typing import Any

import torch
from torch import fx

from billhook.passes.unify import Atom, Term, atoms, cat, prod, resolve

from .context import Context, Result, TermSize
from .contraction import unsolved
from .registry import rule


@rule("aten.view", "aten.reshape", "aten._unsafe_view")
def view(ctx: Context, node: fx.Node) -> Result:
    value = node.args[0]
    assert isinstance(value, fx.Node)
    if not isinstance(node.args[1] if len(node.args) > 1 else node.kwargs.get("size", node.kwargs.get("shape")), (list, tuple)):
        return unsolved(ctx, node, "a view to another element type")
    out = ctx.regroup(node, ctx.dims(value), ctx.shape(node))
    name = "shape" if "reshape" in str(node.target) else "size"
    ctx.edit(node, {name: ctx.sizes(out)})
    return out


@rule("aten.squeeze")
def squeeze(ctx: Context, node: fx.Node) -> Result:
    """Which dimensions vanish is decided at dense sizes: an axis that is cut to a single index stays a dimension."""
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    asked = a.get("dim")
    dims = range(len(x)) if asked is None else [int(d) % max(1, len(x)) for d in (asked if isinstance(asked, (list, tuple)) else [asked])]
    gone = [d for d in dims if d < len(x) and x[d].size == 1]
    ctx.edit(node, {"self": a["self"], "dim": gone}, op=torch.ops.aten.squeeze.dims)
    return tuple(t for d, t in enumerate(x) if d not in gone)


@rule("aten.flatten", "aten.unsqueeze")
def flatten(ctx: Context, node: fx.Node) -> Result:
    value = node.args[0]
    assert isinstance(value, fx.Node)
    return ctx.regroup(node, ctx.dims(value), ctx.shape(node))


@rule("aten.unflatten")
def unflatten(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    out = ctx.regroup(node, ctx.dims(a["self"]), ctx.shape(node))
    dim = a["dim"] % len(ctx.dims(a["self"]))
    ctx.edit(node, {"sizes": ctx.sizes(out[dim : dim + len(a["sizes"])])})
    return out


@rule("aten.reshape_as", "aten.view_as")
def reshape_as(ctx: Context, node: fx.Node) -> Result:
    value, other = node.args[0], node.args[1]
    assert isinstance(value, fx.Node)
    assert isinstance(other, fx.Node)
    out = ctx.regroup(node, ctx.dims(value), ctx.shape(node))
    for mine, theirs in zip(out, ctx.dims(other), strict=True):
        ctx.equate(node, mine, theirs)
    return out


@rule(
    "aten.permute", "aten.transpose", "aten.t", "aten.swapaxes", "aten.movedim", "aten.numpy_T", "aten.mT", "aten.adjoint", "aten.moveaxis"
)
def permute(ctx: Context, node: fx.Node) -> Result:
    """The order is read off a meta tensor whose strides name its dimensions, so every spelling is covered."""
    value = node.args[0]
    assert isinstance(value, fx.Node)
    x = ctx.dims(value)
    tags = torch.empty_strided([2] * len(x), [3 + i for i in range(len(x))], device="meta")
    target: Any = node.target
    moved = target(tags, *node.args[1:], **node.kwargs)
    return tuple(x[stride - 3] for stride in moved.stride())


@rule("aten.expand", "aten.broadcast_to")
def expand(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x, shape = ctx.dims(a["self"]), ctx.shape(node)
    lead = len(shape) - len(x)
    out = tuple(x[i - lead] if i >= lead and x[i - lead].size == size else Atom(size) for i, size in enumerate(shape))
    ctx.edit(node, {"size": ctx.sizes(out)})
    return out


@rule("aten.repeat", "aten.tile")
def repeat(ctx: Context, node: fx.Node) -> Result:
    value, times = node.args[0], node.args[1]
    assert isinstance(value, fx.Node)
    x, shape, given = ctx.dims(value), ctx.shape(node), times if isinstance(times, (list, tuple)) else [times]
    padded: list[Term] = [*ctx.fresh([1] * (len(shape) - len(x))), *x]
    counts = [size // max(1, t.size) for size, t in zip(shape, padded, strict=True)]
    copies = [Atom(c) for c in counts]
    ctx.edit(node, {"repeats" if "repeat" in str(node.target) else "dims": ctx.sizes(copies[len(shape) - len(given) :])})
    return tuple(prod([c, t]) if c.size > 1 else t for c, t in zip(copies, padded, strict=True))


@rule("aten.repeat_interleave")
def repeat_interleave(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    if not isinstance(a.get("repeats"), int) or a.get("dim") is None:
        return unsolved(ctx, node, "repetition that depends on data")
    x = list(ctx.dims(a["self"]))
    dim = a["dim"] % len(x)
    copies = Atom(a["repeats"])
    x[dim] = prod([x[dim], copies])
    ctx.edit(node, {"repeats": TermSize(copies)})
    return tuple(x)


@rule("aten.cat", "aten.concat", "aten.concatenate")
def concatenate(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    values = [v for v in a["tensors"] if ctx.shape(v) != (0,)]
    dim = a["dim"] % len(ctx.shape(node))
    out: list[Term] = list(ctx.dims(values[0]))
    for value in values[1:]:
        for i, term in enumerate(ctx.dims(value)):
            if i != dim and term is not out[i]:
                ctx.equate(node, out[i], term)
    out[dim] = cat([ctx.dims(v)[dim] for v in values])
    return tuple(out)


@rule("aten.stack")
def stack(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    values = a["tensors"]
    dim = a["dim"] % len(ctx.shape(node))
    out = list(ctx.dims(values[0]))
    for value in values[1:]:
        for mine, theirs in zip(out, ctx.dims(value), strict=True):
            ctx.equate(node, mine, theirs)
    new = Atom(len(values))
    ctx.freeze(node, "one index for each stacked tensor", new)
    return (*out[:dim], new, *out[dim:])


@rule("aten.slice", "aten.narrow")
def slice_(ctx: Context, node: fx.Node) -> Result:
    """A slice cuts the concatenation; a step factors it."""
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    dim = int(a["dim"] or 0) % len(x)
    size = x[dim].size
    if "narrow" in str(node.target):
        start, stop, step = int(a["start"]), int(a["start"]) + int(a["length"]), 1
    else:
        start, stop, step = (0 if a["start"] is None else a["start"]), (size if a["end"] is None else a["end"]), a["step"]
        start, stop, step = slice(start, stop, step).indices(size)
    if start == 0 and stop >= size and step == 1:
        return tuple(x)
    if step > 1:
        return _strided(ctx, node, x, dim, start, stop, step)
    if stop <= start and "narrow" not in str(node.target):
        return _empty(ctx, node, x, dim)
    before, middle, after = _cut(ctx, node, x[dim], start, stop)
    ctx.drop(node, before, after)
    x[dim] = middle
    if "narrow" in str(node.target):
        ctx.edit(node, {"start": TermSize(before), "length": TermSize(middle)})
    else:
        ctx.edit(node, {"start": TermSize(before), "end": TermSize(cat([before, middle]))})
    return tuple(x)


def _empty(ctx: Context, node: fx.Node, x: list[Term], dim: int) -> Result:
    """A slice of nothing is one of nothing at every smaller size too, unless it is counted from the end."""
    a = ctx.bind(node)
    if any(isinstance(a[name], int) and a[name] < 0 for name in ("start", "end")):
        ctx.freeze(node, "an empty slice that is counted from the end", x[dim])
    ctx.drop(node, x[dim])
    x[dim] = Atom(0)
    return tuple(x)


def _cut(ctx: Context, node: fx.Node, term: Term, start: int, stop: int) -> tuple[Term, Term, Term]:
    """The parts before a slice, in it, and after it."""
    before, middle, after = Atom(0), term, Atom(0)
    if stop <= start:
        if 0 < start < term.size:
            before, after = ctx.split(node, term, start)
            return before, Atom(0), after
        return (before, Atom(0), term) if start == 0 else (term, Atom(0), after)
    if stop < term.size:
        middle, after = ctx.split(node, middle, stop)
    if start:
        before, middle = ctx.split(node, middle, start)
    return before, middle, after


def _strided(ctx: Context, node: fx.Node, x: list[Term], dim: int, start: int, stop: int, step: int) -> Result:
    term = x[dim]
    fits = term.size % step == 0 and start < step and stop > term.size - step
    outer = Atom(term.size // step) if fits else Atom(ctx.shape(node)[dim])
    if fits:
        inner = Atom(step)
        ctx.equate(node, term, prod([outer, inner]))
        ctx.freeze(node, "a slice with a step picks one index of each run", inner)
        ctx.drop(node, inner)
        ctx.edit(node, {"end": TermSize(term)})
    else:
        ctx.freeze(node, "a slice with a step that does not factor the dimension", term, outer)
    x[dim] = outer
    return tuple(x)


@rule("aten.select")
def select(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    dim = a["dim"] % len(x)
    ctx.freeze(node, "one index is selected by number", x[dim])
    return (*x[:dim], *x[dim + 1 :])


@rule("aten.unbind")
def unbind(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = ctx.dims(a["self"])
    dim = a["dim"] % len(x)
    ctx.freeze(node, "every index is taken apart by number", x[dim])
    return [(*x[:dim], *x[dim + 1 :]) for _ in range(x[dim].size)]


@rule("aten.split", "aten.chunk", "aten.split_with_sizes", "aten.tensor_split", "aten.unsafe_split", "aten.unsafe_chunk")
def split_(ctx: Context, node: fx.Node) -> Result:
    """Pieces of the concatenation; after a cut their sizes are given one by one."""
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    dim = int(a["dim"]) % len(x)
    sizes = [int(v.shape[dim]) for v in node.meta["val"]]
    pieces: list[Term] = []
    rest: Term = x[dim]
    for size in sizes[:-1]:
        if size == rest.size:
            piece, rest = rest, Atom(0)
        elif size:
            piece, rest = ctx.split(node, rest, size)
        else:
            piece = Atom(0)
        pieces.append(piece)
    pieces.append(rest)
    ctx.edit(node, {"self": a["self"], "split_sizes": ctx.sizes(pieces), "dim": dim}, op=torch.ops.aten.split_with_sizes.default)
    return [(*x[:dim], resolve(piece), *x[dim + 1 :]) for piece in pieces]


@rule("_operator.getitem")
def getitem(ctx: Context, node: fx.Node) -> Result:
    source, index = node.args
    assert isinstance(source, fx.Node)
    terms = ctx.terms[source]
    assert isinstance(terms, list)
    assert isinstance(index, int)
    return terms[index]


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"] if "self" in a else a["input"]))
    groups = int(a["groups"])
    group, member = Atom(groups), Atom(x[1].size // groups)
    ctx.equate(node, x[1], prod([group, member]))
    ctx.edit(node, {"groups": TermSize(group)})
    x[1] = prod([member, group])
    return tuple(x)


@rule("aten.flip")
def reorder(ctx: Context, node: fx.Node) -> Result:
    """No concatenation of runs says that every index goes elsewhere."""
    a = ctx.bind(node)
    x = list(ctx.dims(a["self"]))
    for dim in a["dims"]:
        x[dim] = _elsewhere(ctx, node, x[dim])
    return tuple(x)


@rule("aten.roll")
def roll(ctx: Context, node: fx.Node) -> Result:
    """What leaves at the end comes in at the front: two segments change places. Positions stay whole, for what looks at them next."""
    a = ctx.bind(node)
    x, dims, shifts = list(ctx.dims(a["self"])), [int(d) % len(ctx.dims(a["self"])) for d in a["dims"]], list(a["shifts"])
    if len(set(dims)) != len(shifts):
        return tuple(_elsewhere(ctx, node, term) for term in x)
    for k, dim in enumerate(dims):
        term, shift = x[dim], shifts[k] % max(1, x[dim].size)
        if shift == 0:
            shifts[k] = 0
        elif all(atom.frozen for atom in atoms(term)):
            x[dim] = _elsewhere(ctx, node, term)
        else:
            front, back = ctx.split(node, term, term.size - shift)
            x[dim], shifts[k] = cat([back, front]), TermSize(back)
    ctx.edit(node, {"shifts": shifts})
    return tuple(x)


def _elsewhere(ctx: Context, node: fx.Node, term: Term) -> Term:
    """A new dimension whose indices are those of another in an order that types cannot say: both stay whole."""
    fresh = Atom(term.size)
    ctx.freeze(node, "indices are moved by position", term, fresh)
    return fresh
