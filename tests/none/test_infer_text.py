"""The text form of two small networks, word for word; and that it is the same every time."""

import torch
from torch import nn

import billhook as bh

CONV = """program (export) {
  %_0_weight: f32[0.out:4, 0.in:3, 3, 3] = state 0.weight
  %_0_bias: f32[0.out:4] = state 0.bias
  %_1_weight: f32[0.out:4] = state 1.weight
  %_1_bias: f32[0.out:4] = state 1.bias
  %_4_weight: f32[4.out:2, 0.out:4*4.in.1:2*4.in.2:2] = state 4.weight
  %_4_bias: f32[4.out:2] = state 4.bias
  %_1_running_mean: f32[0.out:4] = state 1.running_mean
  %_1_running_var: f32[0.out:4] = state 1.running_var
"""


class Heads(nn.Module):
    """Queries and keys in two heads of three; the scores are the output."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k = (m(x).view(b, n, 2, 3).transpose(1, 2) for m in (self.q, self.k))
        return (q @ k.transpose(-2, -1)).sum(1)


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def test_a_convolution_that_is_flattened() -> None:
    text = str(bh.trace(conv(), torch.randn(1, 3, 4, 4)))
    state = "\n".join(
        line for line in text.splitlines() if line.startswith("program") or (" = state " in line and "num_batches" not in line)
    )
    assert state + "\n" == CONV
    assert "%conv2d: f32[batch:2, 0.out:4, 4.in.1:2, 4.in.2:2] = aten.conv2d.default(" in text
    assert "%flatten: f32[batch:2, 0.out:4*4.in.1:2*4.in.2:2]" in text
    assert "0.out: 4, 7 places in 7 tensors, additive, prunable" in text
    assert "4.out: 2, 2 places in 2 tensors, additive, frozen: an output of the program" in text


def test_heads_and_their_width() -> None:
    text = str(bh.trace(Heads(), torch.randn(1, 5, 4)))
    assert "%q_weight: f32[q.out.0:2*q.out.1:3, q.in:4] = state q.weight" in text
    assert "%k_weight: f32[q.out.0:2*q.out.1:3, q.in:4] = state k.weight" in text
    assert "aten.view.default(%linear, [|batch:2|, |5|, |q.out.0:2|, |q.out.1:3|])" in text
    assert "q.out.0: 2, 2 places in 2 tensors, additive, prunable" in text
    assert "q.out.1: 3, 2 places in 2 tensors, additive, prunable" in text


def test_the_text_is_deterministic() -> None:
    torch.default_generator.manual_seed(0)
    assert str(bh.trace(conv(), torch.randn(1, 3, 4, 4))) == str(bh.trace(conv(), torch.randn(1, 3, 4, 4)))
