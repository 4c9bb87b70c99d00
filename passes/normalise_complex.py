"""Complex numbers become real ones with a last dimension of two: real part, imaginary part. Kernels compute with real numbers only.

A product is (a + bi)(c + di) = (ac - bd) + (bc + ad)i: the parts times c, plus the exchanged parts times (-d, d). A factor that is a
constant, as a table of rotary positions is, leaves four calls that act index by index.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch
from torch import fx

from billhook.costmodel.operators import dims_of
from billhook.costmodel.origin import CallOrigin, Extents, dims_meta, origin_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import operator_of, tensor_args

from .normalise_draft import Draft
from .normalise_operators import reshaped

aten: Any = torch.ops.aten


def use_real_numbers(draft: Draft) -> None:
    """Compute with the parts of complex numbers. CaptureError for complex inputs and outputs, and operators without a rule.

    Expects the spelling of normalise_operators: reshape, expand, permute and slice with explicit arguments.
    """
    parts = _Parts(draft)
    for node in draft.nodes():
        if node.op == "call_function" and (_is_complex(node) or any(map(_is_complex, tensor_args(node)))):
            parts.rewrite(node)
        elif node.op == "placeholder" and _is_complex(node):
            raise CaptureError(f"input {node.name} is complex; give its real form (torch.view_as_real) and view it as complex in the model")
        elif node.op == "output" and (found := next(filter(_is_complex, tensor_args(node)), None)) is not None:
            raise CaptureError(f"output {found.name} is complex; return torch.view_as_real of it")
    draft.remove_dead()


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_complex()


@dataclass(frozen=True, slots=True)
class _Parts:
    """The real form of every complex value so far."""

    draft: Draft
    known: dict[fx.Node, fx.Node] = field(default_factory=dict[fx.Node, fx.Node])

    def rewrite(self, node: fx.Node) -> None:
        rule = _RULES.get(operator_of(node))
        if rule is None:
            raise CaptureError(
                f"node {node.name} ({node.target}) computes with complex numbers and has no real form; write it with real ones"
            )
        value = rule(self, node)
        if _is_complex(node):
            self.known[node] = value
        else:
            self.draft.replace(node, value)

    def of(self, value: fx.Node) -> fx.Node:
        """Both parts of a complex value [..., 2]; a constant's are made here."""
        if value.op == "get_attr" and value not in self.known:
            tensor = torch.view_as_real(self.draft.tensor(value).resolve_conj()).contiguous()
            self.known[value] = self.draft.constant(value, f"{value.target}_parts", tensor, _with_parts(value))
        return self.known[value]

    def call(self, node: fx.Node, target: Any, args: tuple[Any, ...], dims: Extents, origin: CallOrigin | None = None) -> fx.Node:
        """A call before a node that computes a part of what takes its place."""
        return self.draft.call(node, target, args, name=f"{node.name}_parts", dims=dims, origin=origin)

    def times(self, node: fx.Node, value: fx.Node, factor: Any, dims: Extents) -> fx.Node:
        return self.call(node, aten.mul.Tensor, (value, factor), dims)

    def signs(self, node: fx.Node, real: float, imaginary: float) -> fx.Node:
        """What multiplies the two parts by these."""
        return self.draft.constant(node, f"{node.name}_signs", torch.tensor([real, imaginary]), (2,))


def _with_parts(node: fx.Node) -> Extents:
    return (*dims_meta(node.meta), 2)


def _given(parts: _Parts, node: fx.Node) -> fx.Node:
    """The real form of the only operand, or the operand that is the real form."""
    value = cast("fx.Node", node.args[0])
    return parts.of(value) if _is_complex(value) else value


def _same(parts: _Parts, node: fx.Node) -> fx.Node:
    """Linear operators act on both parts alike, and so does what moves elements along the other dimensions."""
    if not all(_is_complex(a) for a in tensor_args(node)[: 1 if operator_of(node) == "aten.index" else None]):
        raise CaptureError(f"node {node.name} ({node.target}) mixes complex and real numbers; make both complex")
    arguments = fx.map_arg(node.args, lambda n: parts.of(n) if _is_complex(n) else n)
    name, dims = f"{node.name}_parts", _with_parts(node)
    return parts.draft.call(node, node.target, arguments, name=name, dims=dims, origin=origin_meta(node.meta), kwargs=node.kwargs)


def _shaped(parts: _Parts, node: fx.Node) -> fx.Node:
    """A reshape or expand, whose shape gets the dimension of the parts."""
    dims = _with_parts(node)
    literals = (*origin_meta(node.meta).literals, ((1, len(dims) - 1), 2))
    return parts.call(node, node.target, (_given(parts, node), [*dims_of(node), 2]), dims, CallOrigin(None, literals))


def _permuted(parts: _Parts, node: fx.Node) -> fx.Node:
    order = [*cast("list[int]", node.args[1]), len(dims_of(node))]
    return parts.call(node, aten.permute.default, (_given(parts, node), order), _with_parts(node))


def _along(parts: _Parts, node: fx.Node) -> fx.Node:
    """What acts along one dimension, which is counted from the front."""
    value, dim, *others = cast("Any", node.args)
    arguments = (parts.of(value), int(dim) % len(dims_of(value)), *others)
    return parts.call(node, node.target, arguments, _with_parts(node), origin_meta(node.meta))


def _joined(parts: _Parts, node: fx.Node) -> fx.Node:
    values = cast("list[fx.Node]", node.args[0])
    dim = int(cast("int", node.args[1] if len(node.args) > 1 else 0)) % len(dims_of(values[0]))
    return parts.call(node, node.target, ([parts.of(v) for v in values], dim), _with_parts(node))


def _product(parts: _Parts, node: fx.Node) -> fx.Node:
    first, second = node.args[:2]
    if not (isinstance(first, fx.Node) and _is_complex(first)) or (first.op == "get_attr" and isinstance(second, fx.Node)):
        first, second = second, first
    value, dims = cast("fx.Node", first), _with_parts(node)
    if isinstance(second, complex):
        raise CaptureError(f"node {node.name} ({node.target}) has a complex number for an argument; give it as a tensor")
    if not isinstance(second, fx.Node):
        return parts.times(node, parts.of(value), second, dims)
    if not _is_complex(value) or not _is_complex(second):
        number, scale = (value, second) if _is_complex(value) else (second, value)
        wide = reshaped(parts.draft, node, scale, [*dims_of(scale), 1], (*dims_meta(scale.meta), 1), f"{node.name}_scale")
        return parts.times(node, parts.of(number), wide, dims)
    pair, factor = parts.of(value), parts.of(second)
    last, each = len(dims_of(factor)) - 1, (*dims_meta(second.meta), 1)
    real, imaginary = (parts.call(node, aten.slice.Tensor, (factor, last, k, k + 1, 1), each) for k in (0, 1))
    turning = parts.times(node, imaginary, parts.signs(node, -1.0, 1.0), dims_meta(factor.meta))
    exchanged = parts.call(node, aten.flip.default, (pair, [len(dims_of(pair)) - 1]), dims_meta(pair.meta))
    straight, across = parts.times(node, pair, real, dims), parts.times(node, exchanged, turning, dims)
    return parts.call(node, aten.add.Tensor, (straight, across), dims)


def _polar(parts: _Parts, node: fx.Node) -> fx.Node:
    length, angle = (cast("fx.Node", a) for a in node.args)
    sides = (parts.call(node, f, (angle,), dims_meta(angle.meta)) for f in (aten.cos.default, aten.sin.default))
    scaled = [parts.times(node, length, side, dims_meta(node.meta)) for side in sides]
    return parts.call(node, aten.stack.default, (scaled, -1), _with_parts(node))


def _pair(parts: _Parts, node: fx.Node) -> fx.Node:
    return parts.call(node, aten.stack.default, (list(node.args), -1), _with_parts(node))


def _conjugate(parts: _Parts, node: fx.Node) -> fx.Node:
    return parts.times(node, _given(parts, node), parts.signs(node, 1.0, -1.0), _with_parts(node))


def _length(parts: _Parts, node: fx.Node) -> fx.Node:
    pair, dims = _given(parts, node), dims_meta(node.meta)
    squares = parts.call(node, aten.square.default, (pair,), _with_parts(node))
    return parts.call(node, aten.sqrt.default, (parts.call(node, aten.sum.dim_IntList, (squares, [-1]), dims),), dims)


def _part(number: int) -> "_Rule":
    def part(parts: _Parts, node: fx.Node) -> fx.Node:
        return parts.call(node, aten.select.int, (_given(parts, node), len(dims_of(node)), number), dims_meta(node.meta))

    return part


_Rule: TypeAlias = Callable[[_Parts, fx.Node], fx.Node]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("aten.view_as_complex", "aten.view_as_real", "aten.resolve_conj"), _given),
    **dict.fromkeys(("aten.add", "aten.sub", "aten.neg", "aten.index"), _same),
    **dict.fromkeys(("aten.reshape", "aten.expand"), _shaped),
    **dict.fromkeys(("aten.select", "aten.slice", "aten.index_select"), _along),
    **dict.fromkeys(("aten._conj", "aten.conj", "aten.conj_physical"), _conjugate),
    "aten.permute": _permuted,
    "aten.cat": _joined,
    "aten.mul": _product,
    "aten.polar": _polar,
    "aten.complex": _pair,
    "aten.abs": _length,
    "aten.real": _part(0),
    "aten.imag": _part(1),
}
