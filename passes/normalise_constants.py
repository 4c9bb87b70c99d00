"""Constant folding: what depends on state and shapes only is computed once, with the memory semantics of the original."""

from typing import Any, cast

import torch
from torch import fx

from billhook.costmodel.operators import is_pointwise
from billhook.costmodel.origin import dims_meta
from billhook.ir.program import operator_of, tensor_args

from .normalise_draft import Draft
from .normalise_inplace import memory, written

_FILLED = ("zeros", "ones", "full")
_SHAPE_ONLY = {f"aten.{kind}_{name}" for kind, names in {"new": (*_FILLED, "empty")}.items() for name in names} | {
    f"aten.{name}_like" for name in (*_FILLED, "empty")
}
_UNIFORM = {f"aten.{name}" for name in _FILLED} | {name for name in _SHAPE_ONLY if "empty" not in name}


def fold_constants(draft: Draft) -> None:
    """Replace every call that depends on no input by the tensor that it computes.

    In-place writes among constants happen in the recorded order on private copies, so views see them. A value that is
    constant along a dimension by construction (an expanded or filled tensor) is stored with extent 1 there if all its
    readers broadcast.
    """
    _Folder(draft).run()
    draft.remove_dead()


class _Folder:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.owner = memory(draft)
        self.constant = self._constant_calls()
        self.overwritten = {self.owner[w] for n in draft.calls() for w in written(n)}
        self.values: dict[fx.Node, Any] = {}
        self.stored: dict[tuple[fx.Node, int], fx.Node] = {}

    def run(self) -> None:
        for node in self.draft.nodes():
            if node in self.constant:
                self.values[node] = self._compute(node)
            elif node.op in {"call_function", "output"}:
                for value in dict.fromkeys(tensor_args(node)):
                    if value in self.constant:
                        node.replace_input_with(value, self._store(value))
        for node in reversed(list(self.draft.nodes())):
            if node in self.constant and not node.users:
                self.draft.graph.erase_node(node)

    def _constant_calls(self) -> set[fx.Node]:
        """Calls on state alone, less those whose memory an input-dependent call writes into, or that write into state."""
        tainted = {base for n in self.draft.calls() for w in written(n) if (base := self.owner[w]).op == "get_attr"}
        while True:
            constant: set[fx.Node] = set()
            for node in self.draft.calls():
                known = all(a.op == "get_attr" or a in constant for a in _values_needed(node))
                if known and self.owner[node] not in tainted and not _is_random(node):
                    constant.add(node)
            fresh = {self.owner[w] for n in self.draft.calls() if n not in constant for w in written(n)} - tainted
            if not fresh:
                return constant
            tainted |= fresh

    def _compute(self, node: fx.Node) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._real)
        target = cast("Any", node.target)
        with torch.no_grad():
            if self.owner[node] in self.overwritten:
                return target(*args, **kwargs)
            if operator_of(node) in _UNIFORM:
                filled = target(*args, **kwargs)
                return filled.reshape(-1)[:1].clone().expand(filled.shape) if filled.ndim else filled
            if operator_of(node) in {"aten.roll", "aten.flip"} and _moves_nothing(node, cast("Any", args[0])):
                return args[0]
            repeated = _repeated(node, args)
            if not repeated:
                return (torch.ops.aten.reshape.default if target is torch.ops.aten.view.default else target)(*args, **kwargs)
            small = [_narrow(a, repeated) if isinstance(a, torch.Tensor) and a.ndim > 1 else a for a in args]
            return target(*small, **kwargs).expand(tuple(node.meta["val"].shape))

    def _real(self, value: fx.Node) -> Any:
        """A constant's tensor. State is copied before the first use, since a later call may write into it."""
        if value in self.values:
            return self.values[value]
        if value.op != "get_attr":  # only the shape of an input-dependent argument matters
            like = value.meta["val"]
            return torch.empty(1, dtype=like.dtype).expand(tuple(like.shape))
        self.values[value] = self.draft.tensor(value).clone()
        return self.values[value]

    def _store(self, node: fx.Node) -> fx.Node:
        """A get_attr node that reads the value as it is at this point of the execution."""
        value: torch.Tensor = self.values[node]
        key = (node, value._version)  # pyright: ignore[reportPrivateUsage]
        if key not in self.stored:
            repeated = [d - value.ndim for d in range(value.ndim) if value.stride(d) == 0 and value.shape[d] > 1]
            if not all(self._broadcasts(reader) for reader in node.users if reader not in self.constant):
                repeated = []
            small = _narrow(value, repeated).clone(memory_format=torch.contiguous_format)
            dims = tuple(1 if d - value.ndim in repeated else e for d, e in enumerate(dims_meta(node.meta)))
            self.stored[key] = self.draft.constant(node, f"folded.of_{node.name}", small, dims)  # `folded.to` would be a method of modules
        return self.stored[key]

    def _broadcasts(self, reader: fx.Node) -> bool:
        """Whether a reader's result keeps its shape when a constant shrinks: another argument has that shape."""
        value = reader.meta.get("val")
        if not isinstance(value, torch.Tensor) or not is_pointwise(reader):
            return False
        others = [a for a in tensor_args(reader) if a.op != "get_attr" and a not in self.constant]
        return any(tuple(a.meta["val"].shape) == tuple(value.shape) for a in others)


def _values_needed(node: fx.Node) -> list[fx.Node]:
    """The arguments whose values, not only shapes, decide the result."""
    args, name = tensor_args(node), operator_of(node)
    if name in _SHAPE_ONLY:
        return args[1:]
    return args[:1] if name in {"aten.expand_as", "aten.view_as", "aten.reshape_as"} else args


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and "dropout" not in str(node.target)


def _repeated(node: fx.Node, args: tuple[Any, ...]) -> list[int]:
    """Dimensions (negative) along which a call acts index by index on arguments that repeat one value there (stride 0)."""
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if operator_of(node) == "aten.batch_norm":
        rank = tensors[0].ndim
        return [d for d in _still(tensors[:1], rank) if d + rank != 1]
    if not is_pointwise(node) or not tensors:
        return []
    return _still(tensors, max(t.ndim for t in tensors))


def _moves_nothing(node: fx.Node, value: torch.Tensor) -> bool:
    """Whether a roll or flip acts along dimensions only in which one value is repeated."""
    dims = cast("list[int]", node.args[2 if operator_of(node) == "aten.roll" and len(node.args) > 2 else -1])
    return len(node.args) > 1 + (operator_of(node) == "aten.roll") and all(value.stride(d) == 0 for d in dims)


def _still(tensors: list[torch.Tensor], rank: int) -> list[int]:
    dims = [d for d in range(-rank, 0) if all(t.ndim < -d or t.stride(d) == 0 or t.shape[d] == 1 for t in tensors)]
    return dims if any(t.ndim >= -d and t.shape[d] > 1 for t in tensors for d in dims) else []


def _narrow(tensor: torch.Tensor, dims: list[int]) -> torch.Tensor:
    for d in dims:
        if tensor.ndim >= -d and tensor.shape[d] > 1:
            tensor = tensor.narrow(d, 0, 1)
    return tensor
