"""A private copy of a graph that normalisation rewrites: nodes with fake values, and the state that they read."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils import _pytree as pytree

from billhook.costmodel.origin import CallOrigin, DimOf, Extents, dims_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import state_of

Example = tuple[tuple[Any, ...], Mapping[str, Any]]


class Draft:
    """A graph of ATen calls that may be rewritten, the tensors behind its get_attr nodes, and the mode of its fake values.

    Every node has in its meta: `val` (a fake tensor, or a list of them), `dims` (where each extent comes from, see
    costmodel.origin) and, for calls, `origin` (where the literals come from).
    """

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.state: dict[str, torch.Tensor] = {}
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def nodes(self) -> Iterator[fx.Node]:
        """The nodes in execution order; nodes may be added and removed meanwhile."""
        return iter(list(self.graph.nodes))

    def calls(self) -> Iterator[fx.Node]:
        """The calls in execution order, without those that were removed meanwhile."""
        return (n for n in self.nodes() if n.op == "call_function" and not n._erased)  # pyright: ignore[reportPrivateUsage]

    def tensor(self, node: fx.Node) -> torch.Tensor:
        """The tensor behind a get_attr node."""
        return self.state[str(node.target)]

    def evaluate(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The fake result of a call on nodes."""
        fake_args, fake_kwargs = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
        with self.mode, torch.no_grad():
            return target(*fake_args, **fake_kwargs)

    def call(
        self,
        before: fx.Node,
        target: Any,
        args: tuple[Any, ...],
        *,
        name: str,
        dims: Extents,
        origin: CallOrigin | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> fx.Node:
        """Insert a call before a node."""
        with self.graph.inserting_before(before):
            node = self.graph.create_node("call_function", target, args, dict(kwargs or {}), name=name)
        return self._describe(node, dims, origin)

    def change(
        self,
        node: fx.Node,
        target: Any,
        args: tuple[Any, ...],
        *,
        dims: Extents | None = None,
        origin: CallOrigin | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Turn a call into another one that keeps its name, place and readers."""
        node.target, node.args, node.kwargs = target, args, dict(kwargs or {})
        self._describe(node, dims_meta(node.meta) if dims is None else dims, origin)

    def _describe(self, node: fx.Node, dims: Extents, origin: CallOrigin | None) -> fx.Node:
        node.meta.update(val=self.evaluate(node.target, node.args, node.kwargs), dims=dims, origin=origin or CallOrigin())
        return node

    def constant(self, before: fx.Node, name: str, tensor: torch.Tensor, dims: Extents) -> fx.Node:
        """Insert a read of a new state tensor before a node; the name is made unique."""
        unique, number = name, 0
        while unique in self.state:
            number += 1
            unique = f"{name}_{number}"
        self.state[unique] = tensor
        with self.graph.inserting_before(before):
            node = self.graph.create_node("get_attr", unique, name=unique.replace(".", "_"))
        node.meta.update(val=self.fake(tensor), dims=dims)
        return node

    def replace(self, node: fx.Node, by: fx.Node) -> None:
        """Let every reader of a node read another one, and remove the node."""
        node.replace_all_uses_with(by)
        self.graph.erase_node(node)

    def fake(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def remove_dead(self) -> None:
        """Remove calls and state that nothing reads; calls that write in place stay."""
        for node in reversed(list(self.graph.nodes)):
            writes = node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)
            if node.op in {"call_function", "get_attr"} and not node.users and not writes:
                self.graph.erase_node(node)

    def module(self) -> fx.GraphModule:
        """The finished graph with its state. Inputs are flat tensors; the output is a tuple of tensors."""
        self.remove_dead()
        read = {str(n.target) for n in self.graph.nodes if n.op == "get_attr"}
        self.graph.lint()
        return fx.GraphModule({name: tensor for name, tensor in self.state.items() if name in read}, self.graph, "Normal")


def draft_of(module: fx.GraphModule, example: Example | None) -> Draft:
    """Copy a graph, with shapes for the example's sizes (None: the sizes that it was captured with).

    Sizes that the graph computes become numbers. Raises CaptureError if the graph's shape literals do not fit the example.
    """
    draft = Draft()
    given = _inputs(module, example)
    env: dict[fx.Node, Any] = {}
    reads: dict[int, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            flat = [v for v in pytree.tree_leaves(fx.map_arg(node.args, lambda n: env[n])) if isinstance(v, fx.Node)]
            draft.graph.output(tuple(flat))
        elif node.op == "placeholder":
            env[node] = _copy_input(draft, node, given[node])
        elif node.op == "get_attr":
            env[node] = _copy_state(draft, node, state_of(module, str(node.target)), reads)
        else:
            env[node] = _copy_call(draft, node, env)
    return draft


def _inputs(module: fx.GraphModule, example: Example | None) -> dict[fx.Node, Any]:
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    if example is None:
        return {n: n.meta.get("val") for n in placeholders}
    leaves: list[Any] = pytree.tree_leaves(example)
    if len(leaves) != len(placeholders):
        leaves = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if len(leaves) != len(placeholders):
        raise CaptureError(f"the graph takes {len(placeholders)} inputs but the example has {len(leaves)}; give one value per input")
    return dict(zip(placeholders, leaves, strict=True))


def _copy_input(draft: Draft, node: fx.Node, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value  # a number that the graph was specialised to
    new = draft.graph.create_node("placeholder", node.target, name=node.name)
    empty = torch.empty(tuple(value.shape), dtype=value.dtype, device="meta")
    with draft.mode:
        fake = torch.empty_like(empty, device="cpu")
    new.meta.update(val=fake, dims=tuple(DimOf(node.name, d) for d in range(fake.ndim)))
    return new


def _copy_state(draft: Draft, node: fx.Node, tensor: torch.Tensor, reads: dict[int, fx.Node]) -> fx.Node:
    """One node for each state tensor, however often and under however many names it is read."""
    if id(tensor) not in reads:
        draft.state[str(node.target)] = tensor.detach()
        new = draft.graph.create_node("get_attr", str(node.target), name=node.name)
        new.meta.update(val=draft.fake(tensor), dims=tuple(DimOf(node.name, d) for d in range(tensor.ndim)))
        reads[id(tensor)] = new
    return reads[id(tensor)]


def _copy_call(draft: Draft, node: fx.Node, env: Mapping[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
    try:
        value = draft.evaluate(node.target, args, kwargs)
    except (DynamicOutputShapeException, DataDependentOutputException) as failure:
        remedy = "kernels have fixed shapes: compute it outside the model, or with a mask"
        raise CaptureError(f"node {node.name} ({node.target}): the shape of its result depends on data; {remedy}") from failure
    except (RuntimeError, TypeError, ValueError) as failure:
        first = str(failure).strip().splitlines()[0]
        raise CaptureError(
            f"node {node.name} ({node.target}) does not accept the example's sizes: {first}; give inputs of the captured shape"
        ) from failure
    if isinstance(value, int | float | bool):
        return value
    new = draft.graph.create_node("call_function", node.target, args, kwargs, name=node.name)
    rank = value.ndim if isinstance(value, torch.Tensor) else 0
    new.meta.update(val=value, dims=tuple(DimOf(node.name, d) for d in range(rank)), origin=CallOrigin(node.name))
    return new
