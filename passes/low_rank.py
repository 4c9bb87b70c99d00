"""Low-rank implants: a linear map or convolution as two layers, whose inner width is an axis like any other.

    y = W x + b    becomes    y = A (B x) + b    with A [outputs, rank] and B [rank, inputs x window]

At full rank the two are the layer, exactly; cutting the new axis makes them its approximation of that rank. Between keeping a layer and
removing its outputs this is a third choice (HAP, Yu et al. 2021), for which nothing else has to know of factors: scores, costs, cuts and
their oracle see two layers. The factors are those of the truncated singular value decomposition weighted by what the layer sees, which
at every rank is the best approximation of its values (E ||W x - A B x||^2) on the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import fx, nn

from billhook.ir.deferred import DeferredGraphModule
from billhook.ir.errors import AxisError
from billhook.ir.program import FACTORED, Program, state_of

from .infer import infer_axes
from .norms import argument
from .readers import Reader, find_readers

_FLOOR = 1e-6  # of the mean second moment: directions that the data never show still count that much


def implantable(program: Program) -> tuple[Reader, ...]:
    """The layers that can be factored: those whose weight is read by nothing else, in execution order."""
    names: dict[int, int] = {}
    for node in program.nodes():
        if node.op == "get_attr":
            tensor = id(state_of(program.graph, str(node.target)))
            names[tensor] = names.get(tensor, 0) + len(node.users)
    return tuple(r for r in find_readers(program) if names[id(state_of(program.graph, r.weight))] == 1)


def full_rank(program: Program, layer: Reader) -> int:
    """The rank at which a layer's factors can be any weight: the smaller side of its matrix."""
    weight = state_of(program.graph, layer.weight)
    return min(weight.shape[0], weight[0].numel())


def rank_name(layer: Reader) -> str:
    """The name of the inner axis that a layer has once it is factored."""
    return _rank_of(layer.weight)


def _rank_of(weight: str) -> str:
    return f"{_inner(weight)}.out"


def _inner(weight: str) -> str:
    """The inner layer's name: beside the weight that it takes a part of."""
    return f"{weight.rpartition('.')[0]}.rank".lstrip(".")


def rank_sizes(program: Program, candidates: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The candidate sizes without rank 0: a layer that makes nothing of what it reads is removed by its own outputs or inputs."""
    ranks = {_rank_of(weight) for weight in program.factored}
    return {name: tuple(s for s in sizes if s or name not in ranks) for name, sizes in candidates.items()}


def implant(program: Program, layers: Sequence[Reader], moments: Mapping[str, torch.Tensor]) -> Program:
    """The program with these layers factored at full rank, and its axes. Its outputs are equal, up to roundings.

    moments: E[x x^T] of the features of layers, by their nodes; a layer without them is factored by its weight alone. What is cut from
    the result is a graph: the user's class has no such layers. Raises AxisError for a layer that is not `implantable`.
    """
    allowed = {layer.node for layer in implantable(program)}
    for layer in layers:
        if layer.node not in allowed:
            raise AxisError(
                f"layer {layer.node}: its weight {layer.weight} is tied to another layer's and cannot be factored; leave it out"
            )
    factors = {layer.node: _factors(state_of(program.graph, layer.weight), moments.get(layer.node)) for layer in layers}
    graph = _Rewriter(program, {layer.node: layer for layer in layers}, factors).module()
    graph.meta[FACTORED] = tuple(layer.weight for layer in layers)
    return infer_axes(replace(program, graph=graph, types={}, axes=(), edits={}, reads=()))


def implant_by_name(program: Program, weights: Sequence[str]) -> Program:
    """The layers with these weights factored, as a saved plan names them. Raises AxisError where there is no such layer."""
    known = {layer.weight: layer for layer in implantable(program)}
    absent = [name for name in weights if name not in known]
    if absent:
        raise AxisError(
            f"the plan factors {absent[0]}, which is the weight of no linear map or convolution here; load it into its own model"
        )
    return implant(program, [known[name] for name in weights], {}) if weights else program


def _factors(weight: torch.Tensor, moments: torch.Tensor | None) -> tuple[nn.Parameter, nn.Parameter]:
    """(A, B) with A B = W, rank by rank in descending order of what it contributes, and as large one as the other."""
    matrix = weight.detach().double().flatten(1)
    root, inverse = _roots(moments, matrix.shape[1])
    left, values, right = torch.linalg.svd(matrix @ root, full_matrices=False)
    scale = values.sqrt()
    outer, inner = left * scale, scale[:, None] * right @ inverse
    shapes = (weight.shape[0], len(values), *(1 for _ in weight.shape[2:])), (len(values), *weight.shape[1:])
    made = (nn.Parameter(f.reshape(s).to(weight), weight.requires_grad) for f, s in zip((outer, inner), shapes, strict=True))
    return cast("tuple[nn.Parameter, nn.Parameter]", tuple(made))


def _roots(moments: torch.Tensor | None, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric root of the second moments, and its inverse."""
    if moments is None:
        same = torch.eye(size, dtype=torch.float64)
        return same, same
    values, vectors = torch.linalg.eigh(moments)
    roots = (values.clamp(min=0) + _FLOOR * values.mean().clamp(min=1e-30)).sqrt()
    return vectors * roots @ vectors.T, vectors / roots @ vectors.T


class _Rewriter:
    """A copy of the graph with each factored layer as two; the second keeps the layer's node and the names of its parameters."""

    def __init__(self, program: Program, layers: Mapping[str, Reader], factors: Mapping[str, tuple[nn.Parameter, nn.Parameter]]) -> None:
        self.program, self.layers, self.factors = program, layers, factors
        self.new = fx.Graph()
        self.mapping: dict[fx.Node, fx.Node] = {}
        self.state = program.state()

    def module(self) -> fx.GraphModule:
        dropped = {cast("fx.Node", argument(n, "weight")) for n in self.program.nodes() if n.name in self.layers}
        for node in self.program.nodes():
            if node.name in self.layers:
                self.mapping[node] = self._two(node, self.layers[node.name])
            elif node not in dropped:
                self.mapping[node] = self.new.node_copy(node, lambda n: self.mapping[n])
        self.new.set_codegen(self.program.graph.graph._codegen)  # pyright: ignore[reportPrivateUsage]
        module = DeferredGraphModule(self.state, self.new, "Captured")
        module.meta.update(self.program.graph.meta)
        return module

    def _two(self, node: fx.Node, layer: Reader) -> fx.Node:
        outer, inner = self.factors[node.name]
        source, bias = self.mapping[cast("fx.Node", argument(node, "input"))], argument(node, "bias")
        plain = {"stride": 1, "padding": 0, "dilation": 1} if layer.window else {}
        window = [argument(node, name) or [value] * (inner.dim() - 2) for name, value in plain.items()]
        first = self._call(node, f"{node.name}_rank", source, self._weight(node, f"{_inner(layer.weight)}.weight", inner), None, *window)
        second = self._weight(node, layer.weight, outer)
        return self._call(node, node.name, first, second, None if bias is None else self.mapping[cast("fx.Node", bias)])

    def _weight(self, node: fx.Node, name: str, value: nn.Parameter) -> fx.Node:
        self.state[name] = value
        made = self.new.get_attr(name)
        with _mode(node) as mode:
            made.meta["val"] = mode.from_tensor(value)
        return made

    def _call(self, origin: fx.Node, name: str, *args: Any) -> fx.Node:
        made = self.new.create_node("call_function", cast("Any", origin.target), args, name=name)
        made.meta.update(origin.meta)
        fakes = fx.map_arg(args, lambda n: n.meta["val"])
        with _mode(origin), torch.no_grad():
            made.meta["val"] = cast("Any", origin.target)(*cast("Any", fakes))
        return made


def _mode(node: fx.Node) -> Any:
    """The mode of a node's fake value."""
    return node.meta["val"].fake_mode
