"""Long chains built straight as graphs, where capturing them would take longer than analysing them a hundred times."""

from typing import Any

import torch
from torch import fx

from billhook.ir.program import Program

aten = torch.ops.aten


class _Builder:
    def __init__(self, side: int) -> None:
        self.graph, self.state, self.side = fx.Graph(), dict[str, torch.Tensor](), side
        self.x = self.note(self.graph.placeholder("x"), 3)

    def note(self, node: fx.Node, channels: int) -> fx.Node:
        node.meta["val"] = torch.empty(2, channels, self.side, self.side, device="meta")
        return node

    def parameter(self, name: str, *shape: int, trainable: bool = True) -> fx.Node:
        self.state[name] = torch.nn.Parameter(torch.rand(shape) + 0.5) if trainable else torch.rand(shape) + 0.5
        node = self.graph.get_attr(name)
        node.meta["val"] = torch.empty(shape, device="meta")
        return node

    def conv(self, x: fx.Node, name: str, i: int, o: int) -> fx.Node:
        weight = self.parameter(f"{name}_weight", o, i, 3, 3)
        made = self.note(self.graph.call_function(aten.conv2d.default, (x, weight, None, [1, 1], [1, 1])), o)
        parts = [self.parameter(f"{name}_{p}", o, trainable=p in "wb") for p in ("w", "b", "mean", "var")]
        return self.note(self.graph.call_function(aten.batch_norm.default, (made, *parts, False, 0.1, 1e-5, False)), o)

    def call(self, op: Any, args: tuple[Any, ...], channels: int) -> fx.Node:
        return self.note(self.graph.call_function(op, args), channels)

    def program(self, result: fx.Node) -> Program:
        self.graph.output(result)
        module = fx.GraphModule(self.state, self.graph, "Chain")
        return Program(module, None, ((torch.randn(2, 3, self.side, self.side),), {}), "built")


def residual_chain(blocks: int, width: int = 8, side: int = 4) -> Program:
    """conv-bn-relu-conv-bn added to its input, over and over: one axis for the stream and one inside each block."""
    b = _Builder(side)
    x = b.conv(b.x, "stem", 3, width)
    for k in range(blocks):
        y = b.call(aten.relu.default, (b.conv(x, f"a{k}", width, width),), width)
        y = b.conv(y, f"b{k}", width, width)
        x = b.call(aten.relu.default, (b.call(aten.add.Tensor, (x, y), width),), width)
    return b.program(b.conv(x, "head", width, 2))


def dense_chain(blocks: int, width: int = 8, side: int = 4) -> Program:
    """Each block reads the concatenation of all before it."""
    b = _Builder(side)
    parts = [b.call(aten.relu.default, (b.conv(b.x, "stem", 3, width),), width)]
    for k in range(blocks):
        joined = b.call(aten.cat.default, (parts, 1), width * len(parts))
        parts = [*parts, b.call(aten.relu.default, (b.conv(joined, f"a{k}", width * len(parts), width),), width)]
    joined = b.call(aten.cat.default, (parts, 1), width * len(parts))
    return b.program(b.conv(joined, "head", width * len(parts), 2))
