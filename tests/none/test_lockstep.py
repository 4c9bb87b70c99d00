"""Running a graph over several batches, node by node."""

import pytest
import torch
from torch import nn

import billhook as bh
from billhook.ir.errors import DataError
from billhook.passes.lockstep import Lockstep
from billhook.passes.observe import any_batch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)) * scale)


def test_values_are_those_of_the_model_and_weights_ahead_may_change() -> None:
    model = Net().eval()
    batches = [(torch.randn(n, 4), torch.tensor(float(n))) for n in (2, 5)]
    program = bh.trace(model, batches[0])
    graph = any_batch(program)
    product = next(n.name for n in graph.graph.nodes if "mul" in str(n.target))
    last = [n.name for n in graph.graph.nodes if "linear" in str(n.target)][-1]
    steps = Lockstep(graph, batches, {product, last})
    with torch.no_grad():
        for found, (x, scale) in zip(steps.until(product), batches, strict=True):
            torch.testing.assert_close(found, torch.relu(model.first(x)) * scale)
        model.second.weight.zero_()
        for found, batch in zip(steps.until(last), batches, strict=True):
            torch.testing.assert_close(found, model(*batch))
            torch.testing.assert_close(found, model.second.bias.expand_as(found))
    assert [f.shape[0] for f in steps.until(product)] == [2, 5]  # what was asked for stays


def test_a_batch_that_does_not_fit_is_named() -> None:
    program = bh.trace(Net().eval(), (torch.randn(2, 4), torch.tensor(1.0)))
    with pytest.raises(DataError, match="does not accept"):
        Lockstep(any_batch(program), [(torch.randn(2, 3), torch.tensor(1.0))], {"mul"})
