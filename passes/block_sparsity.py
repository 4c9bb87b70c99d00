"""Block column sparsity per layer (GRIM; `ir/block_sparse.py` says what is kept): which layers may have it, their masks, and their kernels.

Widths and columns are independent: a network that was cut can be masked as well. The masked model is an ordinary torch model, whose
weights have zeros and keep them while it is trained.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from billhook.ir.block_sparse import CONV, LINEAR, BlockPattern, block_mask
from billhook.ir.network import Kernel, Network
from billhook.ir.progress import Progress, no_progress
from billhook.ir.workload import Ref, Workload

from .batches import Loader, Loss, apply, mode, scalar_loss, split

ROWS = 16  # output channels of a block: a whole number of vectors of every processor target
SHARES = (0.5, 0.25, 0.1)  # of the columns
TAPS = (4, 2, 1)  # of a 3x3 filter, where kernel patterns are asked for
TIE = 1e-3  # of the dense loss: what a layer's whole squared norm is worth beside it
_SPARSE = {"aten.linear.default": LINEAR, "aten.conv2d.default": CONV}
_FOLDED = "folded_weight"  # a constant with the batch norm behind it folded in


@dataclass(frozen=True, slots=True)
class BlockLayer:
    """A layer that may be sparse. parameter: its weight in the model; kernels: numbers in the network; patterns: sparser ones later."""

    parameter: str
    kernels: tuple[int, ...]
    patterns: tuple[BlockPattern, ...]


def block_layers(network: Network, model: nn.Module, *, taps: bool = False) -> tuple[BlockLayer, ...]:
    """The linear layers and ungrouped convolutions whose weight is a parameter of the model. taps: kernel patterns in place of columns."""
    parameters = dict(model.named_parameters())
    users: dict[str, list[int]] = {}
    for number, kernel in enumerate(network.kernels):
        name = weight_parameter(kernel)
        if name in parameters:
            users.setdefault(name, []).append(number)
    found = ((name, tuple(numbers), _patterns(parameters[name], taps=taps)) for name, numbers in users.items())
    return tuple(BlockLayer(*layer) for layer in found if layer[2])


def weight_parameter(kernel: Kernel) -> str:
    """The model's parameter that a kernel's weight comes from; "" where the kernel cannot be sparse."""
    call = kernel.workload.anchor
    weight = call.args[1] if call.op in _SPARSE and len(call.args) > 1 else None
    if not isinstance(weight, Ref) or weight.index >= len(kernel.inputs) or (call.op == "aten.conv2d.default" and call.args[-1] != 1):
        return ""
    name = kernel.inputs[weight.index]
    return name.removesuffix(_FOLDED) + "weight" if name.endswith(_FOLDED) else name


def _patterns(weight: torch.Tensor, *, taps: bool) -> tuple[BlockPattern, ...]:
    columns, window = weight[0].numel(), weight[0][0].numel() if weight.dim() == 4 else 1
    if taps:
        return tuple(BlockPattern(ROWS, t * weight.shape[1], t) for t in TAPS) if window == 9 else ()
    return tuple(BlockPattern(ROWS, max(1, round(s * columns))) for s in SHARES) if columns >= 2 * ROWS else ()


def sparse_workload(workload: Workload, pattern: BlockPattern) -> Workload:
    """The workload of a linear layer or convolution with only the pattern's columns."""
    call = workload.anchor
    sparse = replace(call, op=_SPARSE[call.op], args=(*call.args, pattern.rows, pattern.kept, pattern.taps))
    return replace(workload, calls=(sparse, *workload.calls[1:]))


def sparse_network(network: Network, chosen: Mapping[str, BlockPattern]) -> Network:
    """The network with sparse kernels for the parameters that have a pattern. Its weights have to be masked (`mask_parameters`)."""
    kernels = tuple(
        replace(k, workload=sparse_workload(k.workload, chosen[name])) if (name := weight_parameter(k)) in chosen else k
        for k in network.kernels
    )
    return replace(network, kernels=kernels)


class _Masked(nn.Module):
    """A parametrization: the weight times a mask."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.get_buffer("mask")


def mask_parameters(model: nn.Module, chosen: Mapping[str, BlockPattern]) -> None:
    """Mask weights, by their norms, and keep them masked while the model is trained; `release` ends that.

    A parametrization, so that graphs, which read weights without calling their modules, see masked ones as well.
    """
    for name, pattern in chosen.items():
        module, _, attribute = name.rpartition(".")
        owner = model.get_submodule(module)
        parametrize.register_parametrization(owner, attribute, _Masked(block_mask(owner.get_parameter(attribute), pattern)))


def release(model: nn.Module, chosen: Mapping[str, BlockPattern]) -> None:
    """Turn the masked weights back into plain parameters, the same objects as before, whose zeros stay."""
    for name in chosen:
        module, _, attribute = name.rpartition(".")
        parametrize.remove_parametrizations(model.get_submodule(module), attribute)


@contextmanager
def masked(model: nn.Module, chosen: Mapping[str, BlockPattern]) -> Generator[None]:
    """Weights are masked, and stay so while the body trains the model; afterwards they are plain parameters with zeros."""
    mask_parameters(model, chosen)
    try:
        yield
    finally:
        release(model, chosen)


def kept_energy(weight: torch.Tensor, pattern: BlockPattern) -> float:
    """Share of the squared norm that a pattern keeps."""
    square = weight.detach().double().square()
    return float((square * block_mask(weight, pattern)).sum() / square.sum().clamp_min(1e-30))


def block_worth(
    layers: Sequence[BlockLayer],
    model: nn.Module,
    loader: Loader | None,
    loss_fn: Loss,
    batches: int = 2,
    progress: Progress = no_progress,
) -> dict[str, np.ndarray]:
    """What each layer is worth dense and with each of its patterns, sparsest first: minus the loss with that layer alone masked.

    Without data, minus the squared norm of what is left out. Patterns that keep more are worth more, if only by `TIE` of the loss
    where a few batches say that leaving out costs nothing.
    """
    data = [split(batch) for batch in islice(loader, batches)] if loader is not None else []
    parameters = dict(model.named_parameters())
    found: dict[str, np.ndarray] = {}
    for done, layer in enumerate(layers):
        progress("probe layers", done, len(layers))
        weight = parameters[layer.parameter]
        losses = [0.0 if loader is None else _loss(model, data, loss_fn)]
        for pattern in layer.patterns:
            if loader is None:
                losses.append((1 - kept_energy(weight, pattern)) * float(weight.detach().square().sum()))
            else:
                losses.append(_masked_loss(model, weight, pattern, data, loss_fn))
        left_out = np.array([0.0, *(1 - kept_energy(weight, pattern) for pattern in layer.patterns)])
        found[layer.parameter] = -(np.maximum.accumulate(losses) + TIE * abs(losses[0]) * left_out)[::-1]
    return found


def _masked_loss(
    model: nn.Module, weight: nn.Parameter, pattern: BlockPattern, data: Sequence[tuple[object, object]], loss_fn: Loss
) -> float:
    kept = weight.data
    try:
        weight.data = kept * block_mask(weight, pattern)
        return _loss(model, data, loss_fn)
    finally:
        weight.data = kept


def _loss(model: nn.Module, data: Sequence[tuple[object, object]], loss_fn: Loss) -> float:
    with torch.no_grad(), mode(model, training=False):
        losses = [float(scalar_loss(loss_fn, apply(model, x), y, i)) for i, (x, y) in enumerate(data)]
    return sum(losses) / len(losses)
