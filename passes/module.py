"""The two materialisations of a cut network: a trainable graph, and the user's own module class."""

import copy
import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from billhook.ir.deferred import DeferredGraphModule

MODES = {"training", "train", "use_input_stats"}
SWITCHES = "mode_arguments"  # in a node's meta: survives copies of graph and module


@dataclass(frozen=True, slots=True)
class Materialised:
    """A graph made of a program's: its state by name, and the node that stands for each node of the program."""

    state: Mapping[str, torch.Tensor]
    graph: fx.Graph
    mapping: Mapping[fx.Node, fx.Node]


class TrainableGraph(DeferredGraphModule):
    """A GraphModule of ATen calls that obeys train() and eval(): dropout and batch statistics follow the mode.

    The graph must come from an evaluation-form capture: an argument that says "training" there (dropout that the user
    wrote as always on, normalisation without running statistics) is the model's own choice and stays.
    """

    def __init__(self, state: Mapping[str, torch.Tensor] | torch.nn.Module, graph: fx.Graph, class_name: str = "TrainableGraph") -> None:
        for node in graph.nodes:
            node.meta.setdefault(SWITCHES, _switches(node))
            for i in node.meta[SWITCHES]:
                node.update_arg(i, False)
        super().__init__(state if isinstance(state, torch.nn.Module) else dict(state), graph, class_name)
        self.training = False
        for module in self.modules():
            module.training = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainableGraph":
        with warnings.catch_warnings():  # torch copies its own tree specifications by a constructor that it has deprecated
            warnings.simplefilter("ignore", FutureWarning)
            return super().__deepcopy__(memo)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def train(self, mode: bool = True) -> "TrainableGraph":
        """Switch dropout and batch normalisation; returns self, as torch's own modules do."""
        self._switch([n for n in self.graph.nodes if n.meta.get(SWITCHES)], mode)
        super().train(mode)
        return self

    def use_batch_statistics(self) -> None:
        """Normalise by the statistics of each batch while everything else stays in evaluation mode; train() or eval() end it."""
        self._switch([n for n in self.graph.nodes if n.meta.get(SWITCHES) and "batch_norm" in str(n.target)], True)

    def _switch(self, nodes: list[fx.Node], mode: bool) -> None:
        changed = False
        for node in nodes:
            for i in node.meta[SWITCHES]:
                if node.args[i] != mode:
                    node.update_arg(i, mode)
                    changed = True
        if changed:
            self.defer()


def _switches(node: fx.Node) -> tuple[int, ...]:
    """Positions of the arguments that say whether the model is being trained, where they say no."""
    return tuple(i for i in _modes(node.target) if i < len(node.args) and node.args[i] is False)


@functools.cache
def _modes(operator: Any) -> tuple[int, ...]:
    """Positions of an operator's arguments that say whether the model is being trained."""
    schema = getattr(operator, "_schema", None)
    return tuple(i for i, a in enumerate(schema.arguments if schema is not None else ()) if a.name in MODES)


def cut_module(model: torch.nn.Module, sliced: Mapping[int, torch.Tensor]) -> torch.nn.Module:
    """A deep copy of the user's module with its tensors exchanged and the usual width attributes updated.

    sliced: new tensor for the id of each dense tensor. Tied tensors stay tied. Nothing is promised about forward code
    that keeps widths in attributes of its own: the caller runs the result and falls back on the graph.
    """
    memo: dict[int, Any] = dict(sliced)
    result = copy.deepcopy(model, memo)
    for module in result.modules():
        _update_attributes(module)
    return result


def _update_attributes(module: torch.nn.Module) -> None:
    """Attributes by which torch.nn's own modules repeat the shape of their tensors."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return
    shape = tuple(weight.shape)
    if isinstance(module, torch.nn.modules.conv._ConvNd):  # pyright: ignore[reportPrivateUsage]
        outer, inner = (shape[1], shape[0]) if module.transposed else (shape[0], shape[1])
        if module.groups > 1:
            before = module.in_channels // module.groups if not module.transposed else module.out_channels // module.groups
            if before == (inner if not module.transposed else outer):
                grouped = shape[0] // ((module.out_channels if not module.transposed else module.in_channels) // module.groups)
                module.groups = max(1, grouped)
        module.in_channels = inner * (1 if module.transposed else module.groups)
        module.out_channels = outer * (module.groups if module.transposed else 1)
    elif isinstance(module, torch.nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, torch.nn.modules.batchnorm._NormBase):  # pyright: ignore[reportPrivateUsage]
        module.num_features = shape[0]
    elif isinstance(module, (torch.nn.LayerNorm, torch.nn.RMSNorm)):
        module.normalized_shape = shape
    elif isinstance(module, torch.nn.GroupNorm):
        module.num_groups = max(1, round(module.num_groups * shape[0] / module.num_channels))
        module.num_channels = shape[0]
    elif isinstance(module, torch.nn.Embedding):
        module.num_embeddings, module.embedding_dim = shape
