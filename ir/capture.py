"""Capture: from the user's module to a Program, by torch.export, else by a concrete trace of one run."""

import contextlib
import copy
import gc
import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx._lazy_graph_module import _use_lazy_graph_module  # pyright: ignore[reportPrivateUsage]
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .deferred import DeferredGraphModule
from .errors import CaptureError, DataError
from .inline import inline_regions
from .program import Program
from .tensors import tensors_in
from .unlift import unlift

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


def capture(model: torch.nn.Module, args: Args, kwargs: Kwargs | None = None) -> Program:
    """Capture a model in evaluation form.

    args, kwargs: example inputs; their shapes become the program's, except for a common leading dimension (the batch),
    which stays free: a batch of one is captured as two, so that it cannot be mistaken for a broadcast.
    Raises CaptureError (with the reason of every attempt) and DataError (NaN or infinite weights).
    """
    named = dict(kwargs or {})
    _check_weights(model)
    was_training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        _check_example(model, args, named)
        graph, origin, example = _first_that_works(model, args, named)
    finally:
        for name, module in model.named_modules():
            module.training = was_training[name]
    return Program(graph=graph, model=model, example=(example[0], example[1]), origin=origin)


def _first_that_works(model: torch.nn.Module, args: Args, kwargs: dict[str, Any]) -> tuple[fx.GraphModule, str, tuple[Args, Kwargs]]:
    examples: list[tuple[Args, dict[str, Any]]] = []
    doubled = _double_batch(args, kwargs)
    if doubled is not None:
        examples.append(doubled)
    examples.append((args, kwargs))
    attempts: list[tuple[str, Callable[..., fx.GraphModule]]] = [("export", _export), ("concrete", _concrete)]
    failures: list[str] = []
    for origin, attempt in attempts:
        for example in examples:
            try:
                return attempt(model, *example), origin, (args, kwargs)
            # What a tracer raises depends on the user's code, which it executes: every failure is kept and reported.
            except Exception as failure:  # noqa: BLE001
                failures.append(f"{origin}: {_first_line(failure)}")
    unique = list(dict.fromkeys(failures))
    raise CaptureError(
        "the model cannot be captured; " + "; ".join(unique) + "; give a model that torch.export accepts, or its static part"
    )


def _first_line(failure: Exception) -> str:
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{failure.__class__.__qualname__}: {lines[0] if lines else ''}"[:300]


def _export(model: torch.nn.Module, args: Args, kwargs: dict[str, Any]) -> fx.GraphModule:
    with warnings.catch_warnings(), _use_lazy_graph_module(True), _without_collection():
        warnings.simplefilter("ignore")
        graph = unlift(torch.export.export(model, args, kwargs, strict=False), "Captured")
    inline_regions(graph)
    _check_sizes(graph)
    return graph


@contextlib.contextmanager
def _without_collection() -> Generator[None]:
    """Tracing makes many objects that live to its end: looking for garbage among them, again and again, is a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_sizes(graph: fx.GraphModule) -> None:
    """Every size must be a number. Raises CaptureError: sizes that depend on data are only known in one concrete run."""
    for node in graph.graph.nodes:
        for value in tensors_in(node.meta.get("val")):
            if any(isinstance(size, torch.SymInt) for size in value.shape):
                raise CaptureError(f"the shape of {node.name} ({node.target}) depends on data")


def _concrete(model: torch.nn.Module, args: Args, kwargs: dict[str, Any]) -> fx.GraphModule:
    """Record the operators of one run on the example: branches and sizes that depend on data become constants."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    flat, spec = pytree.tree_flatten((args, kwargs))
    tensors = [i for i, leaf in enumerate(flat) if isinstance(leaf, torch.Tensor)]

    def run(names_to_state: dict[str, torch.Tensor], inputs: list[torch.Tensor]) -> list[Any]:
        full = list(flat)
        for i, tensor in zip(tensors, inputs, strict=True):
            full[i] = tensor
        call_args, call_kwargs = pytree.tree_unflatten(full, spec)
        result = torch.func.functional_call(model, names_to_state, call_args, call_kwargs)
        return tensors_in(result)

    with torch.no_grad(), warnings.catch_warnings(), _ReadsValues():
        warnings.simplefilter("ignore")
        traced = make_fx(run, tracing_mode="real", pre_dispatch=True)(state, [flat[i] for i in tensors])
    return _lift_state(traced, list(state.items()))


class _ReadsValues(TorchFunctionMode):
    """Python numbers taken from tensors are those of this run: a branch or a size that depends on them is decided by it."""

    READS = frozenset(
        {torch.Tensor.item, torch.Tensor.tolist, *(getattr(torch.Tensor, f"__{n}__") for n in ("bool", "int", "float", "index"))}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.READS:
            with disable_proxy_modes_tracing():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _lift_state(traced: fx.GraphModule, state: list[tuple[str, torch.Tensor]]) -> fx.GraphModule:
    """Turn the leading placeholders back into named state, and fake the recorded values."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    root: dict[str, Any] = dict(state)
    placeholders = [n for n in traced.graph.nodes if n.op == "placeholder"]
    names = {node: name for node, (name, _) in zip(placeholders, state, strict=False)}
    for node in traced.graph.nodes:
        if node in names:
            mapping[node] = graph.get_attr(names[node])
        else:
            if node.op == "get_attr":
                root[str(node.target)] = getattr(traced, str(node.target))
            mapping[node] = graph.node_copy(node, lambda n: mapping[n])
        mapping[node].meta.update(node.meta)
    graph.lint()
    module = DeferredGraphModule(root, graph, "Captured")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for node in module.graph.nodes:
        value = node.meta.get("val", root.get(str(node.target)) if node.op == "get_attr" else None)
        if isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
            node.meta["val"] = mode.from_tensor(value.detach(), static_shapes=True)
    return module


def _double_batch(args: Args, kwargs: dict[str, Any]) -> tuple[Args, dict[str, Any]] | None:
    flat, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in flat if isinstance(leaf, torch.Tensor) and leaf.dim() > 0]
    if not tensors or any(t.shape[0] != 1 for t in tensors):
        return None
    twice = [torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) and leaf.dim() > 0 else leaf for leaf in flat]
    doubled_args, doubled_kwargs = pytree.tree_unflatten(twice, spec)
    return doubled_args, doubled_kwargs


def _check_weights(model: torch.nn.Module) -> None:
    """Parameters must be finite; buffers may hold infinities (masks do), but no NaN."""
    bad = [name for name, tensor in model.named_parameters() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    bad += [name for name, tensor in model.named_buffers() if tensor.is_floating_point() and bool(torch.isnan(tensor).any())]
    if bad:
        raise DataError(f"{bad[0]} holds NaN or infinite values; repair or reload the weights before compiling")


def _check_example(model: torch.nn.Module, args: Args, kwargs: dict[str, Any]) -> None:
    level = logging.getLogger().level
    try:
        with torch.no_grad():
            copy.copy(model)(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError) as failure:
        shapes = ", ".join(str(tuple(a.shape)) for a in tensors_in((args, kwargs)))
        raise CaptureError(f"the model does not accept the example inputs ({shapes}): {_first_line(failure)}") from failure
    finally:
        logging.getLogger().setLevel(level)
