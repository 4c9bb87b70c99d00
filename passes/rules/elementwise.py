"""Operators that act index by index: every tensor argument is broadcast to the result."""

from torch import fx

from billhook.ir.program import tensor_args

from .context import Context, Result
from .contraction import unsolved
from .registry import rule

POINTWISE = """
abs add addcmul addcdiv sub rsub mul div true_divide floor_divide remainder fmod pow square sqrt rsqrt reciprocal neg exp exp2 expm1 log
log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh sigmoid logit erf erfc floor ceil round trunc frac sign sgn clamp
clamp_min clamp_max clip maximum minimum fmax fmin relu relu6 leaky_relu elu celu selu gelu silu mish softplus softshrink hardshrink
hardsigmoid hardswish hardtanh threshold log_sigmoid prelu rrelu dropout alpha_dropout feature_dropout native_dropout eq ne lt le gt ge
logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor isnan isinf isfinite where masked_fill
lerp nan_to_num rand_like zeros_like ones_like full_like empty_like to _to_copy contiguous clone detach alias lift_fresh_copy
lift_fresh lift copy_ fill_ zero_ fill bernoulli float half bfloat16 double cpu positive __and__ __or__ __xor__ __lshift__ __rshift__
deg2rad xlogy bitwise_left_shift bitwise_right_shift polar complex real imag angle conj conj_physical resolve_conj resolve_neg
""".split()  # noqa: SIM905


@rule(*(f"aten.{name}" for name in POINTWISE))
def pointwise(ctx: Context, node: fx.Node) -> Result:
    """A parameter that is added makes the axis; one that multiplies scales it."""
    if isinstance(node.meta["val"], (list, tuple)):
        return unsolved(ctx, node, "how many there are depends on data")  # `where` with a condition alone
    values = [a for a in tensor_args(node) if isinstance(ctx.terms.get(a), tuple)]
    terms = ctx.broadcast(node, values, ctx.shape(node))
    adds = str(node.target).startswith(("aten.add", "aten.sub", "aten.rsub"))
    for value in values:
        for dim in range(len(ctx.dims(value))):
            ctx.role(value, dim, "producer" if adds else "scale")
    return terms


@rule("aten.type_as")
def type_as(ctx: Context, node: fx.Node) -> Result:
    """Only the element type of the other value is looked at."""
    value, other = node.args[0], node.args[1]
    assert isinstance(value, fx.Node)
    assert isinstance(other, fx.Node)
    ctx.drop(node, *ctx.dims(other))
    return ctx.dims(value)


@rule("aten.expand_as", "aten.view_as_real_copy")
def expand_as(ctx: Context, node: fx.Node) -> Result:
    value, other = node.args[0], node.args[1]
    assert isinstance(value, fx.Node)
    assert isinstance(other, fx.Node)
    return ctx.broadcast(node, [other, value], ctx.shape(node))


@rule("aten.glu")
def glu(ctx: Context, node: fx.Node) -> Result:
    """The first half is gated by the second: both halves are one axis."""
    a = ctx.bind(node)
    terms = list(ctx.dims(a["self"]))
    dim = a["dim"] % len(terms)
    first, second = ctx.split(node, terms[dim], terms[dim].size // 2)
    terms[dim] = ctx.equate(node, first, second)
    return tuple(terms)
