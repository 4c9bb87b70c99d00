"""Vector approximations of transcendental functions, exact to about one part in 10^7.

LLVM would turn exp, tanh and erf of a vector into one library call per lane. These are plain polynomials over vectors.
They keep away from numbers below 2^-126, on which processors are slow: a gate is never smaller than e^-60.
"""

from typing import Any

from billhook.codegen.tvm_any import T

from .vector import bind, splat

# exp(r) - 1 - r over r^2 for |r| <= ln(2)/2: Taylor coefficients 1/2! .. 1/7!, remainder below 6e-9.
_EXP = (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5)
# 2^f on [-1/2, 1/2], minimax: relative error 7.5e-8.
_EXP2 = (0.0013276471781601587, 0.009675541332720305, 0.05550713274150481, 0.2402211972388329, 0.693146967064362, 1.0000000716546729)
_LOG2_E = 1.4426950408889634
_ROUND = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the last bits
# log2(erfc(x)) / x on [0, 4], fitted so that 2^(x * polynomial) is erfc to 8e-8.
_ERFC = (
    0.00010022153123002422,
    -0.00046157711158037744,
    -0.002302225175780391,
    0.029452496864543036,
    -0.14896365722941834,
    -0.91832864752879,
    -1.6279137315600885,
)
_GELU = (*(c * 0.5 ** ((len(_ERFC) - i) / 2) for i, c in enumerate(_ERFC)), -1.0)  # log2(erfc(x / sqrt 2) / 2)
# ln(2) in two parts, so that the range reduction does not lose bits.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


def clamp(x: Any, low: float, high: float, lanes: int) -> Any:
    """min(max(x, low), high)."""
    return T.min(T.max(x, splat(low, lanes)), splat(high, lanes))


def exp(x: Any, lanes: int) -> Any:
    """e^x, saturating outside [-87, 88]: 2^n * e^r with n the nearest integer to x / ln 2."""
    x = bind(clamp(x, -87.0, 88.0, lanes))
    n = bind(T.floor(x * splat(1.4426950408889634, lanes) + splat(0.5, lanes)))
    r = bind(x - n * splat(_LN2_HIGH, lanes) - n * splat(_LN2_LOW, lanes))
    poly = splat(_EXP[0], lanes)
    for c in _EXP[1:]:
        poly = poly * r + splat(c, lanes)
    value = bind(poly * r * r + r + splat(1.0, lanes))
    bits = T.shift_left(T.cast(n, f"int32x{lanes}") + T.broadcast(T.int32(127), lanes), T.broadcast(T.int32(23), lanes))
    return bind(value * T.reinterpret(f"float32x{lanes}", bits))


def exp_quick(x: Any, limit: float, lanes: int) -> Any:
    """e^x for x clamped to [-limit, limit], limit at most 87: relative error 1e-7 near zero, growing by 4e-8 per unit of |x|."""
    return _exp2(bind(clamp(x, -limit, limit, lanes) * splat(_LOG2_E, lanes)), lanes)


def _exp2(x: Any, lanes: int) -> Any:
    """2^x for |x| <= 126: the nearest integer goes into the exponent, 2^rest is a polynomial."""
    integer = f"int32x{lanes}" if lanes > 1 else "int32"
    real = integer.replace("int", "float")
    shifted = bind(T.reinterpret(integer, x + splat(_ROUND, lanes)))  # as an integer, or TVM would cancel what is taken off again
    fraction = bind(x - (T.reinterpret(real, shifted) - splat(_ROUND, lanes)))
    poly = _horner(_EXP2, fraction, lanes)
    return bind(T.reinterpret(real, T.reinterpret(integer, bind(poly)) + T.shift_left(shifted, _integers(23, lanes))))


def _horner(coefficients: tuple[float, ...], x: Any, lanes: int) -> Any:
    """A polynomial, highest power first."""
    value = splat(coefficients[0], lanes)
    for c in coefficients[1:]:
        value = value * x + splat(c, lanes)
    return value


def _integers(value: int, lanes: int) -> Any:
    return T.broadcast(T.int32(value), lanes) if lanes > 1 else T.int32(value)


def sigmoid(x: Any, lanes: int) -> Any:
    """1 / (1 + e^-x)."""
    return bind(splat(1.0, lanes) / _one_and_exp(splat(0.0, lanes) - x, lanes))


def silu(x: Any, lanes: int) -> Any:
    """X / (1 + e^-x)."""
    return bind(x / _one_and_exp(splat(0.0, lanes) - x, lanes))


def _one_and_exp(x: Any, lanes: int) -> Any:
    return bind(splat(1.0, lanes) + exp_quick(x, 60.0, lanes))


def tanh(x: Any, lanes: int) -> Any:
    """1 - 2 / (1 + e^2x)."""
    two = splat(2.0, lanes)
    return bind(splat(1.0, lanes) - two / _one_and_exp(two * x, lanes))


def erf(x: Any, lanes: int) -> Any:
    """The error function, 1 - 2^log2(erfc(x)) mirrored for negative arguments: error 2e-7, without a division."""
    one, zero = splat(1.0, lanes), splat(0.0, lanes)
    size = bind(T.min(T.max(x, zero - x), splat(4.0, lanes)))
    value = bind(one - _exp2(bind(size * _horner(_ERFC, size, lanes)), lanes))
    return bind(T.Select(x < zero, zero - value, value))


def gelu(x: Any, lanes: int) -> Any:
    """The normal distribution function times x, as max(x, 0) - |x| erfc(|x| / sqrt 2) / 2: error 2e-7, without a division."""
    zero = splat(0.0, lanes)
    size = bind(T.min(T.max(x, zero - x), splat(5.6, lanes)))
    return bind(T.max(x, zero) - size * _exp2(bind(_horner(_GELU, size, lanes)), lanes))
