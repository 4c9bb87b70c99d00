"""Convolutions, linear maps and matrix products: they sum over the input dimension and make the output dimension."""

from typing import Any

from torch import fx

from billhook.ir.program import tensor_args
from billhook.passes.unify import Atom, Term, prod

from .context import Context, Result, TermSize
from .numbers import totals
from .registry import rule

SPATIAL = "window over this dimension"


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", "aten._convolution")
def convolution(ctx: Context, node: fx.Node) -> Result:
    """Weight [co, ci/groups, ...]: input = groups * ci, output = groups * co. A depthwise filter scales its channels."""
    a = ctx.bind(node)
    if a.get("transposed"):
        return _transposed(ctx, node, a)
    x, w = ctx.dims(a["input"]), ctx.dims(a["weight"])
    channel = len(x) - (len(w) - 1)
    groups = int(a["groups"])
    out, group = w[0], None
    if groups == 1:
        ctx.equate(node, x[channel], w[1])
    else:
        group = Atom(groups)
        ctx.equate(node, x[channel], prod([group, w[1]]))
        ctx.equate(node, out, prod([group, Atom(out.size // groups)]))
        ctx.edit(node, {"groups": TermSize(group)})
    depthwise = groups > 1 and w[1].size == 1
    if not depthwise:
        ctx.read(node, a["input"], channel)
    _roles(ctx, a, 0, 1, depthwise)
    return _spatial(ctx, node, a, x, channel, out)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(ctx: Context, node: fx.Node) -> Result:
    return _transposed(ctx, node, ctx.bind(node))


def _transposed(ctx: Context, node: fx.Node, a: dict[str, Any]) -> Result:
    """Weight [ci, co/groups, ...]: input = groups * ci, output = groups * co."""
    x, w = ctx.dims(a["input"]), ctx.dims(a["weight"])
    channel = len(x) - (len(w) - 1)
    groups = int(a["groups"])
    out: Term = w[1]
    if groups == 1:
        ctx.equate(node, x[channel], w[0])
    else:
        group = Atom(groups)
        ctx.equate(node, w[0], prod([group, Atom(w[0].size // groups)]))
        ctx.equate(node, x[channel], w[0])
        out = prod([group, w[1]])
        ctx.edit(node, {"groups": TermSize(group)})
    depthwise = groups > 1 and w[1].size == 1 and w[0].size == groups
    if not depthwise:
        ctx.read(node, a["input"], channel)
    _roles(ctx, a, 1, 0, depthwise)
    return _spatial(ctx, node, a, x, channel, out)


def _roles(ctx: Context, a: dict[str, Any], out_dim: int, in_dim: int, depthwise: bool) -> None:
    if depthwise:
        ctx.role(a["weight"], 0, "scale")
    else:
        ctx.role(a["weight"], out_dim, "producer")
        ctx.role(a["weight"], in_dim, "consumer")
    ctx.role(a["bias"], 0, "producer")


def _spatial(ctx: Context, node: fx.Node, a: dict[str, Any], x: tuple[Term, ...], channel: int, out: Term) -> Result:
    """A window of one, moved by one, over the dimension as it is: there index i of the result is made from index i alone."""
    windows = ctx.dims(a["weight"])[2:]
    ctx.extent(*windows)
    if a["bias"] is not None:
        ctx.equate(node, out, ctx.dims(a["bias"])[0])
    whole = "transpose" not in str(node.target) and not a.get("transposed")
    strides = list(a["stride"]) * (1 if len(a["stride"]) == len(windows) else len(windows))
    result = list(ctx.positions(node, ctx.shape(node)[channel + 1 :]))
    for i, (term, window, stride) in enumerate(zip(x[channel + 1 :], windows, strides, strict=True)):
        if whole and window.size == stride == 1 and term.size == result[i].size:  # equal sizes: no padding
            result[i] = term
        else:
            ctx.freeze(node, SPATIAL, term)
    return (*x[:channel], out, *result)


@rule("aten.linear")
def linear(ctx: Context, node: fx.Node) -> Result:
    a = ctx.bind(node)
    x, w = ctx.dims(a["input"]), ctx.dims(a["weight"])
    ctx.equate(node, x[-1], w[-1])
    ctx.read(node, a["input"], -1)
    ctx.role(a["weight"], -1, "consumer")
    if len(w) == 1:
        return x[:-1]
    ctx.role(a["weight"], 0, "producer")
    if a["bias"] is not None:
        ctx.equate(node, w[0], ctx.dims(a["bias"])[-1])
        ctx.role(a["bias"], 0, "producer")
    return (*x[:-1], w[0])


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def matmul(ctx: Context, node: fx.Node) -> Result:
    left, right = node.args[0], node.args[1]
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    return product(ctx, node, left, right)


def product(ctx: Context, node: fx.Node, left: fx.Node, right: fx.Node) -> tuple[Term, ...]:
    """[..., m, k] x [..., k, n] with torch.matmul's treatment of vectors and batch dimensions."""
    x, y = ctx.dims(left), ctx.dims(right)
    inner = y[-2] if len(y) > 1 else y[0]
    ctx.equate(node, x[-1], inner)
    ctx.read(node, left, -1)
    ctx.role(left, -1, "consumer")
    ctx.role(right, -2 if len(y) > 1 else 0, "consumer")
    if len(x) > 1:
        ctx.role(left, -2, "producer")
    if len(y) > 1:
        ctx.role(right, -1, "producer")
    tail = [*([x[-2]] if len(x) > 1 else []), *([y[-1]] if len(y) > 1 else [])]
    batch = _batch(ctx, node, x[:-2], y[:-2])
    return (*batch, *tail)


def _batch(ctx: Context, node: fx.Node, x: tuple[Term, ...], y: tuple[Term, ...]) -> list[Term]:
    longer, shorter = (x, y) if len(x) >= len(y) else (y, x)
    result = list(longer)
    for i, term in enumerate(reversed(shorter), 1):
        if result[-i].size == 1:
            result[-i] = term
        elif term.size != 1:
            ctx.equate(node, result[-i], term)
    return result


@rule("aten.addmm", "aten.baddbmm")
def addmm(ctx: Context, node: fx.Node) -> Result:
    added, left, right = node.args[:3]
    assert isinstance(added, fx.Node)
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    out = product(ctx, node, left, right)
    for i, term in enumerate(reversed(ctx.dims(added)), 1):
        if term.size == out[-i].size:
            ctx.equate(node, out[-i], term)
    ctx.role(added, -1, "producer")
    return out


@rule("aten.einsum")
def einsum(ctx: Context, node: fx.Node) -> Result:
    """Equal letters are equal dimensions; a letter that the result lacks is summed over."""
    a = ctx.bind(node)
    operands = list(a["tensors"])
    inputs, output = subscripts(str(a["equation"]), [len(ctx.dims(v)) for v in operands])
    if any(len(set(names)) != len(names) for names in inputs):
        return unsolved(ctx, node, "einsum over a diagonal")
    letters: dict[str, Term] = {}
    for value, names in zip(operands, inputs, strict=True):
        for dim, letter in enumerate(names):
            term = ctx.dims(value)[dim]
            known = letters.get(letter)
            if known is None or known.size == 1:
                letters[letter] = term
            elif term.size != 1:
                ctx.equate(node, known, term)
            ctx.role(value, dim, "producer" if letter in output else "consumer")
    for letter in letters.keys() - set(output):
        value, names = next(
            (v, n)
            for v, n in zip(operands, inputs, strict=True)
            if (letter in n and ctx.dims(v)[n.index(letter)].size > 1) or n == inputs[-1]
        )
        if letter in names:
            ctx.read(node, value, names.index(letter))
    return tuple(letters[letter] for letter in output)


def subscripts(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """An einsum equation spelt out: an ellipsis becomes digits (aligned at its end), an absent result the sorted single letters."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    widths = [rank - len(names.replace("...", "")) if "..." in names else 0 for names, rank in zip(left.split(","), ranks, strict=True)]
    digits = "".join(map(chr, range(48, 48 + max(widths, default=0))))
    inputs = [names.replace("...", digits[len(digits) - w :]) for names, w in zip(left.split(","), widths, strict=True)]
    if arrow:
        return inputs, right.replace("...", digits)
    letters = left.replace(",", "").replace("...", "")
    return inputs, digits + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


@rule("aten.outer", "aten.ger")
def outer(ctx: Context, node: fx.Node) -> Result:
    left, right = node.args[0], node.args[1]
    return (*ctx.dims(left), *ctx.dims(right))


def unsolved(ctx: Context, node: fx.Node, why: str) -> Result:
    """Freeze everything that a node touches, and return frozen results of its recorded shapes."""
    for value in tensor_args(node):
        terms = ctx.terms.get(value, ())
        for dims in terms if isinstance(terms, list) else [terms]:
            ctx.freeze(node, why, *dims)
            ctx.keep_nonempty(*dims)
    result = node.meta.get("val")
    shapes = [tuple(r.shape) if hasattr(r, "shape") else () for r in result] if isinstance(result, (list, tuple)) else None
    if shapes is not None:
        several = [ctx.fresh(shape) for shape in shapes]
        for dims in several:
            ctx.freeze(node, why, *dims)
        return several
    dims = ctx.fresh(tuple(getattr(result, "shape", ())))
    ctx.freeze(node, why, *dims)
    return dims


@rule("aten._grouped_mm", "transformers.grouped_mm_fallback")
def grouped_product(ctx: Context, node: fx.Node) -> Result:
    """Rows sorted by expert [rows, k] times [experts, k, n]; offsets [experts] say where each expert's rows end.

    Offsets that are running totals over the experts follow the axis: an expert without rows ends where the one before it does.
    """
    left, right, *rest = tensor_args(node)
    x, w = ctx.dims(left), ctx.dims(right)
    if len(x) != 2 or len(w) != 3:
        return unsolved(ctx, node, "a grouped product of this form")
    ctx.equate(node, x[1], w[1])
    ctx.read(node, left, 1)
    ctx.role(right, 1, "consumer")
    ctx.role(right, 2, "producer")
    if len(rest) == 1 and totals(rest[0]):
        ctx.equate(node, w[0], ctx.dims(rest[0])[0])
        ctx.drop(node, w[0], ctx.dims(rest[0])[0])
        ctx.keep_nonempty(w[0])
    else:
        ctx.freeze(node, "experts are looked up by number", w[0], *(t for v in rest for t in ctx.dims(v)))
    return (x[0], w[2])
