"""Readers: a layer's own value is its weight times its features, at whichever rows are looked at."""

import pytest
import torch
from torch import nn

import billhook as bh
from billhook.ir.program import state_of
from billhook.passes.readers import ALL_ROWS, find_readers

LAYERS = {
    "linear": (nn.Linear(6, 5), (8, 6)),
    "tokens": (nn.Linear(6, 5), (8, 7, 6)),
    "conv": (nn.Conv2d(3, 5, 3, padding=1), (8, 3, 9, 11)),
    "strided": (nn.Conv2d(3, 5, (3, 2), stride=(2, 3), padding=(2, 0), dilation=(1, 2)), (8, 3, 16, 13)),
    "conv1d": (nn.Conv1d(3, 5, 3, stride=2, padding=1), (8, 3, 21)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("most", [ALL_ROWS, 400, 60, 16, 3])
def test_results_are_the_weight_times_the_features(name: str, most: int) -> None:
    layer, shape = LAYERS[name]
    torch.default_generator.manual_seed(0)
    x = torch.randn(shape)
    program = bh.trace(nn.Sequential(layer).eval(), x)
    (reader,) = find_readers(program)
    with torch.no_grad():
        y = layer(x)
    features, results = reader.features(x, most), reader.results(y, most)
    weight, bias = state_of(program.graph, reader.weight), layer.bias
    assert bias is not None
    torch.testing.assert_close(features @ weight.detach().double().flatten(1).T + bias.detach().double(), results, rtol=1e-5, atol=1e-5)
    whole = y.numel() // 5
    assert len(features) == whole if most >= whole else 0.3 * most <= len(features) <= most


def test_all_samples_are_looked_at_before_all_of_one_map() -> None:
    layer, _ = LAYERS["conv"]
    x = torch.arange(8.0)[:, None, None, None].expand(8, 3, 9, 11)
    (reader,) = find_readers(bh.trace(nn.Sequential(layer).eval(), x))
    seen = reader.features(x, 99)
    assert set(seen[:, 4].unique().tolist()) == set(range(8))  # the middle of the window
