"""Batch-norm recalibration: exact running statistics from one pass over the data, without training."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from billhook.ir.errors import DataError
from billhook.ir.program import state_of
from billhook.ir.progress import Progress

from .batches import Loader, apply, mode, split
from .batches import size as loader_size
from .norms import argument, operator, state_name


def recalibrate_batchnorm(module: nn.Module, loader: Loader, batches: int | None = None, progress: Progress | None = None) -> int:
    """Replace the running statistics of all batch norms by the moments of their inputs over the data; returns how many.

    One pass serves all layers at once: every layer normalises with the statistics of the batch, as in training, while
    everything else (dropout) runs in evaluation mode. Per channel, count, mean and sum of squared deviations of each batch
    are merged in float64 by Chan, Golub and LeVeque's update, so the result is the mean and the unbiased variance over all
    values, whatever the batch sizes: no momentum, and a small last batch counts for what it is. Handles nn.BatchNorm
    modules, and aten.batch_norm calls in a GraphModule. Only the statistics change, and only after the whole pass has
    succeeded.

    Raises DataError: the loader is empty, a batch does not fit, or a layer sees values that are not finite.
    """
    total = batches if batches is not None else loader_size(loader)
    with mode(module, training=False), _observed(module) as (observed, layers), torch.no_grad():
        if not layers:
            return 0
        count = 0
        for count, batch in enumerate(islice(loader, batches), start=1):
            apply(observed, split(batch)[0])
            if progress is not None:
                progress("batch norm statistics", count, max(total, count))
        if not count:
            raise DataError("the data loader is empty; recalibrating batch norm needs at least one batch")
        seen = [layer for layer in layers if layer.count]
        for layer in seen:
            layer.check()
        for layer in seen:
            layer.store()
    return len(seen)


@dataclass(slots=True)
class _Layer:
    """Merged moments of one batch norm's inputs, and the buffers that they will replace."""

    name: str
    running_mean: torch.Tensor
    running_var: torch.Tensor
    count: int = 0
    mean: torch.Tensor | None = None
    deviations: torch.Tensor | None = None  # sum of squared deviations from the mean, per channel

    def observe(self, x: torch.Tensor) -> None:
        """Merge the moments of a batch; x has shape [N, C, ...]."""
        count = x.numel() // x.shape[1]
        values = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(values, [d for d in range(x.dim()) if d != 1], correction=0)
        mean, deviations = mean.double(), variance.double() * count
        if self.mean is None or self.deviations is None:
            self.count, self.mean, self.deviations = count, mean, deviations
            return
        total = self.count + count
        shift = mean - self.mean
        self.mean = self.mean + shift * (count / total)
        self.deviations = self.deviations + deviations + shift.square() * (self.count * count / total)
        self.count = total

    def check(self) -> None:
        assert self.mean is not None
        assert self.deviations is not None
        if not bool(torch.isfinite(self.mean + self.deviations).all()):
            raise DataError(f"batch norm {self.name} sees NaN or infinite values; check the data, or reload the weights before it")

    def store(self) -> None:
        assert self.mean is not None
        assert self.deviations is not None
        self.running_mean.copy_(self.mean)
        self.running_var.copy_(self.deviations / max(self.count - 1, 1))


def _normalise(layer: _Layer, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Batch norm by the statistics of this batch, observed on the way."""
    layer.observe(x)
    if x.numel() == x.shape[1]:
        raise DataError(f"batch norm {layer.name} gets one value per channel, which has no variance; use larger batches")
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


@contextmanager
def _observed(module: nn.Module) -> Generator[tuple[nn.Module, list[_Layer]]]:
    """Something to call instead of the module, in which every batch norm is observed and uses batch statistics."""
    layers: list[_Layer] = []
    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, inner in cast("Iterable[tuple[str, nn.Module]]", module.named_modules()):
        if isinstance(inner, _BatchNorm) and inner.running_mean is not None and inner.running_var is not None:
            layers.append(_Layer(name, inner.running_mean, inner.running_var))
            handles.append(inner.register_forward_hook(_hook(layers[-1])))
    try:
        yield (_observed_graph(module, layers) if isinstance(module, fx.GraphModule) else module), layers
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: _Layer) -> Callable[[nn.Module, tuple[Any, ...], Any], torch.Tensor]:
    def replace(inner: nn.Module, inputs: tuple[Any, ...], _output: Any) -> torch.Tensor:
        assert isinstance(inner, _BatchNorm)
        return _normalise(layer, inputs[0], inner.weight, inner.bias, inner.eps)

    return replace


class _ObservedNorm(nn.Module):
    """What stands in for an aten.batch_norm call."""

    def __init__(self, layer: _Layer, eps: float) -> None:
        super().__init__()
        self.layer, self.eps = layer, eps

    def forward(self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
        return _normalise(self.layer, x, weight, bias, self.eps)


def _observed_graph(module: fx.GraphModule, layers: list[_Layer]) -> nn.Module:
    """A copy of the graph over the same tensors, with observers for its aten.batch_norm calls; their layers are appended."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    root: dict[str, Any] = {}
    known: dict[str, _Layer] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            root[str(node.target)] = state_of(module, str(node.target))
        elif node.op == "call_module":
            root[str(node.target)] = module.get_submodule(str(node.target))
        layer = _layer_of(module, node, known)
        if layer is None:
            mapping[node] = graph.node_copy(node, mapping.__getitem__)
            continue
        stand_in = f"_observed_{node.name}"
        root[stand_in] = _ObservedNorm(layer, float(argument(node, "eps")))
        reads = tuple(mapping.get(argument(node, name)) for name in ("input", "weight", "bias"))
        mapping[node] = graph.call_module(stand_in, reads)
    graph.set_codegen(module.graph._codegen)  # pyright: ignore[reportPrivateUsage]
    layers.extend(known.values())
    return fx.GraphModule(root, graph, "Observed").eval()


def _layer_of(module: fx.GraphModule, node: fx.Node, known: dict[str, _Layer]) -> _Layer | None:
    """The layer of an aten.batch_norm call with running statistics; calls that share their statistics share the layer."""
    mean, variance = state_name(node, "running_mean"), state_name(node, "running_var")
    if operator(node) != "aten.batch_norm" or mean is None or variance is None:
        return None
    return known.setdefault(mean, _Layer(mean.rpartition(".")[0] or mean, state_of(module, mean), state_of(module, variance)))
