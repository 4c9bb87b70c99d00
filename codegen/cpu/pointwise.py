"""ATen's elementwise operators as expressions over one vector. Add an operator here and every template can fuse it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from billhook.codegen.tvm_any import T

from . import mathfn
from .vector import bind, splat

Rule = Callable[[Sequence[Any], Mapping[str, Any], int], Any]


def _vector(x: Any, lanes: int) -> Any:
    return splat(x, lanes) if isinstance(x, int | float) else x


def _scaled(args: Sequence[Any], kwargs: Mapping[str, Any], lanes: int) -> tuple[Any, Any]:
    """Operands of add and sub, the second times alpha."""
    x, y = _vector(args[0], lanes), _vector(args[1], lanes)
    alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
    return x, y if alpha == 1 else y * splat(alpha, lanes)


def _add(args: Sequence[Any], kwargs: Mapping[str, Any], lanes: int) -> Any:
    x, y = _scaled(args, kwargs, lanes)
    return x + y


def _sub(args: Sequence[Any], kwargs: Mapping[str, Any], lanes: int) -> Any:
    x, y = _scaled(args, kwargs, lanes)
    return x - y


def _mul(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return _vector(args[0], lanes) * _vector(args[1], lanes)


def _div(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    if isinstance(args[1], int | float):
        return args[0] * splat(1.0 / args[1], lanes)
    return _vector(args[0], lanes) / args[1]


def _clamp(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    x = args[0]
    low, high = (*args[1:], None, None)[:2]
    x = x if low is None else T.max(x, splat(low, lanes))
    return x if high is None else T.min(x, splat(high, lanes))


def _relu(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return T.max(args[0], splat(0.0, lanes))


def _hardsigmoid(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return mathfn.clamp(args[0] * splat(1 / 6, lanes) + splat(0.5, lanes), 0.0, 1.0, lanes)


def _hardswish(args: Sequence[Any], kwargs: Mapping[str, Any], lanes: int) -> Any:
    return args[0] * _hardsigmoid(args, kwargs, lanes)


def _silu(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return mathfn.silu(args[0], lanes)


def _leaky_relu(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    x, slope = args[0], args[1] if len(args) > 1 else 0.01
    return T.Select(x < splat(0.0, lanes), x * splat(slope, lanes), x)


def _elu(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    x, alpha, scale, input_scale = (*args, *(1.0, 1.0, 1.0)[len(args) - 1 :])
    zero = splat(0.0, lanes)
    negative = splat(alpha, lanes) * (mathfn.exp(T.min(x, zero) * splat(input_scale, lanes), lanes) - splat(1.0, lanes))
    return T.Select(x < zero, negative, x) * splat(scale, lanes)


def _gelu(args: Sequence[Any], kwargs: Mapping[str, Any], lanes: int) -> Any:
    x, half, one = args[0], splat(0.5, lanes), splat(1.0, lanes)
    if kwargs.get("approximate", args[1] if len(args) > 1 else "none") == "tanh":
        inner = splat(0.7978845608028654, lanes) * (x + splat(0.044715, lanes) * x * x * x)
        return half * x * (one + mathfn.tanh(inner, lanes))
    return mathfn.gelu(x, lanes)


def _batch_norm(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    x, weight, bias, mean, variance, _training, _momentum, eps = args[:8]
    scale = bind(splat(1.0, lanes) / T.sqrt(variance + splat(eps, lanes)))
    y = (x - mean) * (scale if weight is None else scale * weight)
    return y if bias is None else y + bias


def _relu6(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return mathfn.clamp(args[0], 0.0, 6.0, lanes)


def _hardtanh(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    low, high = (*args[1:], -1.0, 1.0)[:2] if len(args) != 2 else (args[1], 1.0)
    return mathfn.clamp(args[0], low, high, lanes)


def _neg(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return splat(0.0, lanes) - args[0]


def _abs(args: Sequence[Any], kwargs: Mapping[str, Any], lanes: int) -> Any:
    return T.max(args[0], _neg(args, kwargs, lanes))


def _sqrt(args: Sequence[Any], _: Mapping[str, Any], _lanes: int) -> Any:
    return T.sqrt(args[0])


def _rsqrt(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
    return splat(1.0, lanes) / T.sqrt(args[0])


def _square(args: Sequence[Any], _: Mapping[str, Any], _lanes: int) -> Any:
    return args[0] * args[0]


def _unary(function: Callable[[Any, int], Any]) -> Rule:
    """A rule from a function of a vector and its lanes."""

    def rule(args: Sequence[Any], _: Mapping[str, Any], lanes: int) -> Any:
        return function(args[0], lanes)

    return rule


OPERATORS: Mapping[str, Rule] = {
    "aten.add.Tensor": _add,
    "aten.add.Scalar": _add,
    "aten.sub.Tensor": _sub,
    "aten.sub.Scalar": _sub,
    "aten.mul.Tensor": _mul,
    "aten.mul.Scalar": _mul,
    "aten.div.Tensor": _div,
    "aten.div.Scalar": _div,
    "aten.relu.default": _relu,
    "aten.relu6.default": _relu6,
    "aten.hardtanh.default": _hardtanh,
    "aten.clamp.default": _clamp,
    "aten.clamp_min.default": _clamp,
    "aten.hardsigmoid.default": _hardsigmoid,
    "aten.hardswish.default": _hardswish,
    "aten.sigmoid.default": _unary(mathfn.sigmoid),
    "aten.silu.default": _silu,
    "aten.tanh.default": _unary(mathfn.tanh),
    "aten.gelu.default": _gelu,
    "aten.elu.default": _elu,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.erf.default": _unary(mathfn.erf),
    "aten.exp.default": _unary(mathfn.exp),
    "aten.neg.default": _neg,
    "aten.abs.default": _abs,
    "aten.sqrt.default": _sqrt,
    "aten.rsqrt.default": _rsqrt,
    "aten.square.default": _square,
    "aten.batch_norm.default": _batch_norm,
}
