"""Normal form of what has no kernel of its own: recurrence, several results, writes into parts, norms, empty operands."""

from typing import Any

import pytest
import torch
from normal_form import Function, calls, check, normal
from torch import fx, nn
from torch.nn import functional as F

from billhook.ir.errors import CaptureError
from billhook.passes.normalise import normalise_for_inference


def test_a_write_into_a_part_is_seen_by_the_whole_and_by_other_views() -> None:
    def run(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.a(x)
        other, before = y.t()[1], y * 1.5
        y[:, :2].relu_()
        y[1] += 1.0
        y.view(2, 3, 2)[:, :, 1].mul_(y[:2, :3] * 1.1)
        y[:, 1:3].copy_(other[0] + 0.5)
        return y, other * 2, before, y[0].sum()

    check(Function(run, a=nn.Linear(4, 4)), torch.randn(3, 4))


def test_a_tensor_that_is_filled_in_parts_becomes_a_value() -> None:
    def run(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = torch.empty_like(x)
        y[:, ::2] = x[:, ::2] * 2
        y[:, 1::2] = 3
        y[0].zero_()
        return y

    graph = check(Function(run), torch.randn(3, 4))
    assert "slice_scatter" in calls(graph)
    assert not {"copy_", "copy", "fill_", "zero_"} & set(calls(graph))


def test_a_write_over_a_whole_view_leaves_nothing_of_it() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y[:, 0:] += x[:, :4].exp()
        return y

    check(Function(run, a=nn.Linear(4, 4)), torch.randn(3, 4), ops=["linear", "exp", "add"])


def test_a_written_view_without_an_inverse_is_refused() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y.diagonal().relu_()
        return y

    with pytest.raises(CaptureError, match=r"node diagonal .* written into and has no inverse; copy it") as caught:
        normal(Function(run, a=nn.Linear(4, 4)), torch.randn(3, 4))
    assert "\n" not in str(caught.value)


def test_what_holds_nothing_is_left_out_of_a_concatenation() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return torch.cat([y[:, :0], y, x.narrow(1, 0, 0)], 1)

    check(Function(run, a=nn.Linear(4, 5)), torch.randn(3, 4), ops=["linear"])


def test_operators_with_several_results_become_operators_with_one() -> None:
    def run(_: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        top, places = x.topk(2)
        least, where = x.min(1, keepdim=True)
        spread, mean = torch.var_mean(x, 1)
        pooled = F.max_pool1d(x[None], 2, return_indices=True)[0]
        return top, places * 2, *x.sort(0, descending=True), least, where, x.max(0).values, spread, mean, pooled

    graph = check(Function(run), torch.randn(3, 6))
    assert not {"topk", "sort", "var_mean"} & set(calls(graph))


def test_an_operator_with_several_results_and_no_rule_is_refused_by_name() -> None:
    def run(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x.kthvalue(2).values

    with pytest.raises(CaptureError, match=r"node kthvalue: aten.kthvalue.default returns several tensors"):
        normal(Function(run), torch.randn(2, 6))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}], ids=str)
def test_recurrent_layers_are_unrolled(kind: str, options: dict[str, Any]) -> None:
    def run(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs, last = self.a(x)
        return outputs, *(last if isinstance(last, tuple) else (last,))

    graph = check(Function(run, a=getattr(nn, kind)(4, 5, **options)), torch.randn(3, 2, 4))
    assert not {"lstm", "gru", "rnn_tanh"} & set(calls(graph))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_states_of_a_projected_lstm_and_of_a_given_start() -> None:
    def run(self: Any, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.a(x, (h, c))[1][0]

    check(Function(run, a=nn.LSTM(4, 6, proj_size=3)), torch.randn(3, 2, 4), torch.randn(1, 2, 3), torch.randn(1, 2, 6))


def test_a_long_recurrence_is_refused_with_the_limit() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.a(x)[0]

    with pytest.raises(CaptureError, match=r"node gru .* has 300 steps; 1 to 256 are unrolled"):
        normal(Function(run, a=nn.GRU(2, 2)), torch.randn(300, 2, 2))


def test_an_instance_norm_is_a_group_norm() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))

    parts = {"a": nn.InstanceNorm2d(4, affine=True), "b": nn.InstanceNorm2d(4, track_running_stats=True)}
    check(Function(run, **parts), torch.randn(2, 4, 5, 5), ops=["group_norm", "mul", "add"])


def test_a_shape_that_depends_on_data_is_refused_with_that_reason() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(4)
    graph.output(graph.call_function(torch.ops.aten.nonzero.default, (x,)))
    with pytest.raises(CaptureError, match=r"node nonzero.* the shape of its result depends on data; .* mask"):
        normalise_for_inference(fx.GraphModule(nn.Module(), graph))


def test_complex_numbers_become_pairs_of_real_ones() -> None:
    def run(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = torch.view_as_complex(self.a(x).unflatten(-1, (3, 2)))
        turned = z * torch.polar(torch.ones(4, 3), self.angle)[None] - 0.5 * z.conj()
        by = torch.complex(x[..., :3].cos(), x[..., 3:].sin())
        other = torch.polar(x[..., :3].exp(), x[..., 3:]).transpose(0, 1).unsqueeze(2)[:, 1:].expand(4, 1, 2, 3)
        both = torch.cat([turned * by, x[..., :3] * z], -1)[..., None, 1:5]
        return torch.view_as_real(both).flatten(2), both.real + both.imag, other.abs(), torch.view_as_real(-other.select(-1, -1))

    graph = check(Function(run, a=nn.Linear(6, 6), angle=torch.randn(4, 3)), torch.randn(2, 4, 6))
    assert not any(n.meta["val"].is_complex() for n in graph.graph.nodes if n.op != "output")


def test_a_rotation_by_a_table_is_pointwise() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        z = torch.view_as_complex(x.unflatten(-1, (3, 2)))
        return torch.view_as_real(z * torch.polar(torch.ones(4, 3), self.angle)).flatten(-2)

    check(Function(run, angle=torch.randn(4, 3)), torch.randn(2, 4, 6), ops=["reshape", "flip", "mul", "mul", "add", "reshape"])


def test_complex_outputs_and_operators_without_a_real_form_are_refused() -> None:
    def spectrum(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs()

    def bare(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(x.unflatten(-1, (3, 2)))

    with pytest.raises(CaptureError, match=r"node .*fft.* has no real form; write it with real ones"):
        normal(Function(spectrum), torch.randn(2, 6))
    with pytest.raises(CaptureError, match=r"output view_as_complex is complex; return torch.view_as_real"):
        normal(Function(bare), torch.randn(2, 6))
