"""Written-out RMS norms: recognised where they are exactly that, and left alone elsewhere."""

from collections.abc import Callable

import pytest
import torch
from axis_oracle import bench
from torch import nn

import billhook as bh
from billhook.ir.capture import capture
from billhook.passes.normalise_rms import recognise_rms_norm

Form = Callable[[torch.Tensor], torch.Tensor]

LLAMA: Form = lambda x: x.to(torch.float32) * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + 1e-5)  # noqa: E731
NORMS: dict[str, Form] = {
    "llama": LLAMA,
    "factor first": lambda x: torch.rsqrt((x * x).mean(2, keepdim=True) + 1e-5) * x,
    "square": lambda x: x * torch.rsqrt(torch.square(x).mean((-1,), keepdim=True) + 1e-5),
}
OTHERS: dict[str, Form] = {
    "another dimension": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5),
    "two dimensions": lambda x: x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + 1e-5),
    "another value": lambda x: x.abs() * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    "cubes": lambda x: x * torch.rsqrt(x.pow(3).abs().mean(-1, keepdim=True) + 1e-5),
    "mean read twice": lambda x: x * torch.rsqrt((m := x.pow(2).mean(-1, keepdim=True)) + 1e-5) + m,
    "no epsilon": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
}


class Network(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.up, self.gain, self.down, self.form = nn.Linear(3, 8), nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 2), form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.gain * self.form(self.up(x)))


def operators(program: bh.Program) -> list[str]:
    return [str(n.target) for n in program.nodes() if n.op == "call_function"]


@pytest.mark.parametrize("form", sorted(NORMS))
def test_norms_are_recognised(form: str) -> None:
    model, x = Network(NORMS[form]), torch.randn(2, 5, 3)
    before = capture(model, (x,))
    after = recognise_rms_norm(before)
    assert operators(after).count("aten.rms_norm.default") == 1
    assert not {"aten.mean.dim", "aten.rsqrt.default", "aten.pow.Tensor_Scalar"} & set(operators(after))
    assert torch.allclose(after.graph(x), model(x), atol=1e-6)
    assert "aten.mean.dim" in operators(before)


@pytest.mark.parametrize("form", sorted(OTHERS))
def test_others_are_left_alone(form: str) -> None:
    program = capture(Network(OTHERS[form]), (torch.randn(2, 5, 3),))
    assert recognise_rms_norm(program) is program


def test_a_norm_in_another_precision_than_its_value_is_left_alone() -> None:
    form: Form = lambda x: (x * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-5)).float()  # noqa: E731
    program = capture(Network(form), (torch.randn(2, 5, 3),))
    assert recognise_rms_norm(program) is program


def test_the_cut_norm_is_over_what_is_kept_as_the_class_computes_it() -> None:
    found = bench(Network(NORMS["square"]), torch.randn(2, 5, 3))
    assert found.program.axis("up.out").mixing
    found.check_every_axis()
    model, x = Network(LLAMA).eval(), torch.randn(2, 5, 3)
    pruned = bh.prune(bh.trace(model, x), {"up.out": [0, 2, 3]})
    assert pruned.form == "module"
    assert pruned.model.get_parameter("gain").shape == (3,)
