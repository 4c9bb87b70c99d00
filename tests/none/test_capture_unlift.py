"""The graph that capture unlifts is the one that torch.export's own unlifting gives."""

from typing import Any

import torch
from torch import fx, nn

from billhook.ir.unlift import unlift


class EveryState(nn.Module):
    """Tied parameters, buffers of both kinds, a constant, a region without gradients, named inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.other = nn.Linear(4, 4), nn.Linear(4, 4)  # a name that an operator has, too
        self.other.weight = self.relu.weight
        self.register_buffer("kept", torch.randn(4))
        self.register_buffer("passing", torch.randn(4), persistent=False)
        self.constant = torch.randn(4)

    def forward(self, x: torch.Tensor, *, more: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        y = self.other(self.relu(x).relu()) * self.kept + self.passing + self.constant
        with torch.no_grad():
            still = y.exp()
        return {"y": y + more["z"], "still": still + torch.tensor([1.0, 2.0, 3.0, 4.0])}


def _described(graph: fx.Graph) -> list[tuple[Any, ...]]:
    return [(n.name, n.op, str(n.target), str(n.args), n.meta.get("stack_trace"), _shape(n)) for n in graph.nodes]


def _shape(node: fx.Node) -> Any:
    return getattr(node.meta.get("val"), "shape", None)


def test_it_is_the_same_graph_with_the_same_tensors() -> None:
    model, x, more = EveryState().eval(), torch.randn(2, 4), {"z": torch.randn(2, 4)}
    exported = torch.export.export(model, (x,), {"more": more}, strict=False)
    theirs = exported.module(check_guards=False)
    ours = unlift(exported, "Captured")
    assert _described(ours.graph) == _described(theirs.graph)
    named = dict(ours.named_parameters(remove_duplicate=False))
    assert named == dict(theirs.named_parameters(remove_duplicate=False))
    assert named["relu.weight"] is named["other.weight"]
    assert dict(ours.named_buffers())["passing"] is model.passing
    left, right = ours(x, more=more), theirs(x, more=more)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)
