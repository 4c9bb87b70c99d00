"""Torch-Pruning's pruners (Fang et al. 2023), with the options that its documentation gives for such networks."""

import copy
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from billhook.ir.program import Program

from .data import everywhere

_TP: Callable[[], Any] = lambda: import_module("torch_pruning").importance  # noqa: E731
IMPORTANCES: MappingProxyType[str, Callable[[], Any]] = MappingProxyType(
    {
        "tp-magnitude": lambda: _TP().GroupMagnitudeImportance(p=2),
        "tp-taylor": lambda: _TP().GroupTaylorImportance(),
        "tp-bn-scale": lambda: _TP().BNScaleImportance(),
        "tp-random": lambda: _TP().RandomImportance(),
    }
)
LOCAL = ("tp-random",)  # the same ratio in every layer; the others rank all channels together
_LEAST = 0.1  # of a layer is kept, as of our axes


def applies(name: str, model: nn.Module) -> bool:
    """Scales of batch norms need batch norms."""
    return name != "tp-bn-scale" or any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def pruned(name: str, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], ratio: float) -> nn.Module:
    """A copy of the model cut by a channel ratio, widths rounded to multiples of 8 as ours are; within heads too, it has one rounding."""
    tp: Any = import_module("torch_pruning")
    copied: Any = copy.deepcopy(model).eval()
    heads = {m.qkv: m.heads for m in copied.modules() if hasattr(m, "qkv")}
    if name == "tp-taylor":
        torch.autograd.backward(everywhere(copied(batch[0]), batch[1]))
    torch.manual_seed(0)
    pruner = tp.pruner.BasePruner(
        copied,
        batch[0][:1],
        importance=IMPORTANCES[name](),
        global_pruning=name not in LOCAL,
        pruning_ratio=ratio,
        max_pruning_ratio=1 - _LEAST,
        round_to=8,
        ignored_layers=[copied.head],
        num_heads=heads,
        prune_head_dims=True,
        unwrapped_parameters=[(copied.positions, 2)] if hasattr(copied, "positions") else None,
    )
    pruner.step()
    copied.zero_grad(set_to_none=True)
    return copied


def sizes_of(model: nn.Module, program: Program) -> Mapping[str, int]:
    """Sizes of the program's axes in a network of the same form: what its parameters' shapes say.

    Where several axes share a dimension (heads, and the width of each), the inner ones have shrunk: heads are not removed whole.
    """
    parameters = dict(model.named_parameters())
    state = program.state()
    found: dict[str, int] = {}
    for axis in program.axes:
        member = next((m for m in axis.members if m.tensor in parameters), None)
        if member is None or not axis.prunable:
            continue
        dense = state[member.tensor].shape[member.dim]
        present = parameters[member.tensor].shape[member.dim]
        found[axis.name] = axis.size if member.place.stride > 1 else round(axis.size * present / dense)
    return found
