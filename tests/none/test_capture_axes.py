"""Capture: bad input is refused in one line, and the fallback traces what torch.export cannot."""

import pytest
import torch
from axis_oracle import bench
from torch import nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from billhook.ir.capture import capture
from billhook.ir.errors import BillhookError, CaptureError, DataError


class Branching(nn.Module):
    """A branch on a value: only a run on data decides it."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.fails = nn.Linear(4, 6), nn.Linear(6, 2), fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if self.fails and get_proxy_mode() is not None:
            raise RuntimeError("no tracing here")
        if float(y.sum()) > 1e9:
            return self.b(y)
        return self.b(y.relu())


def one_line(failure: BillhookError) -> str:
    text = str(failure)
    assert "\n" not in text
    return text


def test_the_concrete_trace_serves_a_model_that_branches_on_data() -> None:
    found = bench(Branching(), torch.randn(2, 4))
    assert found.program.origin == "concrete"
    assert "a.out" in found.prunable()
    found.check_every_axis()


def test_a_model_that_cannot_be_captured_says_why_for_each_attempt() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Branching(fails=True), (torch.randn(2, 4),))
    text = one_line(caught.value)
    assert "export:" in text
    assert "concrete:" in text
    assert "static part" in text


def test_a_wrong_example_shape_names_the_shapes() -> None:
    with pytest.raises(CaptureError, match=r"does not accept the example inputs \(\(2, 5\)\)"):
        capture(nn.Linear(4, 2), (torch.randn(2, 5),))


def test_a_missing_input_is_refused() -> None:
    with pytest.raises(CaptureError, match="does not accept"):
        capture(nn.Linear(4, 2), ())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(bad: float) -> None:
    layers = nn.Linear(4, 3), nn.Linear(3, 2)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        layers[1].weight[0, 0] = bad
    with pytest.raises(DataError, match=r"1\.weight holds NaN or infinite"):
        capture(model, (torch.randn(2, 4),))


def test_a_mask_buffer_may_be_infinite() -> None:
    """Causal masks hold minus infinity by design; a NaN in a buffer is still refused."""

    class Masked(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.register_buffer("mask", torch.full((4, 4), value).triu(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.a(x) + self.mask).softmax(-1)

    capture(Masked(float("-inf")), (torch.randn(4, 4),))
    with pytest.raises(DataError, match="mask"):
        capture(Masked(float("nan")), (torch.randn(4, 4),))


def test_modes_and_gradients_of_the_model_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2))
    model[1].eval()
    before = [m.training for m in model.modules()]
    capture(model, (torch.randn(2, 4),))
    assert [m.training for m in model.modules()] == before


def test_parameters_without_gradients_and_a_no_grad_region_are_captured() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6).requires_grad_(requires_grad=False), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = self.a(x)
            return self.b(y.relu())

    found = bench(Frozen(), torch.randn(2, 4))
    assert "a.out" in found.prunable()
    found.check_every_axis()


def test_a_batch_of_one_is_captured_free() -> None:
    found = bench(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(1, 4))
    assert str(found.program.types["input"][0]).startswith("batch") if "input" in found.program.types else True
    assert found.program.graph(torch.randn(5, 4).double()).shape == (5, 2)
