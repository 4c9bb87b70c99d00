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
# Abramowitz and Stegun, formula 7.1.26: |error| <= 1.5e-7.
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERF_P = 0.3275911
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
    scaled = bind(clamp(x, -limit, limit, lanes) * splat(_LOG2_E, lanes))
    integer = f"int32x{lanes}" if lanes > 1 else "int32"
    real = integer.replace("int", "float")
    shifted = bind(T.reinterpret(integer, scaled + splat(_ROUND, lanes)))  # as an integer, or TVM would cancel what is taken off again
    fraction = bind(scaled - (T.reinterpret(real, shifted) - splat(_ROUND, lanes)))
    poly = splat(_EXP2[0], lanes)
    for c in _EXP2[1:]:
        poly = poly * fraction + splat(c, lanes)
    return bind(T.reinterpret(real, T.reinterpret(integer, bind(poly)) + T.shift_left(shifted, _integers(23, lanes))))


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
    """The error function by a rational approximation, mirrored for negative arguments."""
    one, zero = splat(1.0, lanes), splat(0.0, lanes)
    size = bind(T.max(x, zero - x))
    t = bind(one / (one + splat(_ERF_P, lanes) * size))
    poly = splat(_ERF[0], lanes)
    for c in _ERF[1:]:
        poly = poly * t + splat(c, lanes)
    value = bind(one - poly * t * exp_quick(zero - size * size, 87.0, lanes))
    return bind(T.Select(x < zero, zero - value, value))
