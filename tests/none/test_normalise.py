"""Inference normal form: what is gone, what is computed, what has one spelling, and that the values stay."""

from typing import Any

import pytest
import torch
from normal_form import Function, calls, check, normal
from small_networks import NETWORKS, images, network, program
from torch import nn
from torch.nn import functional as F

from billhook.costmodel.partition import partition
from billhook.ir.errors import CaptureError
from billhook.ir.program import operator_of
from billhook.ir.reference import run_network
from billhook.ir.target import Target
from billhook.passes.normalise import normalise_for_inference


def test_what_only_training_needs_is_gone() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Identity(), nn.ReLU(), nn.Dropout(inplace=True), nn.Flatten(1))
    check(model, torch.randn(3, 6), ops=["linear", "relu"])


def test_identities_by_shape_are_gone() -> None:
    def run(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([F.pad(x, (0, 0)).contiguous().view(x.shape)], 1)
        return F.adaptive_avg_pool2d(y.permute(0, 1, 2, 3).expand(2, 4, 5, 5), 5).to(torch.float32).relu()

    check(Function(run), torch.randn(2, 4, 5, 5), ops=["relu"])


def test_readers_after_a_write_in_place_see_the_written_value() -> None:
    def run(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.a(x)
        before = y * 2
        z = y.relu_()
        y.add_(1.0)
        return before, y * z

    check(Function(run, a=nn.Linear(4, 4)), torch.randn(3, 4), ops=["linear", "mul", "relu", "add", "mul"])


def test_a_network_that_keeps_state_is_refused() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.count

    with pytest.raises(CaptureError, match="writes into the state count"):
        normal(Function(run, count=torch.zeros(3)), torch.randn(2, 3))


def test_constants_are_computed_with_the_writes_that_make_them() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        mask = x.new_zeros(6, 6)
        mask[:3, 2:].fill_(1)
        mask[2:, :].add_(self.table[:4])
        return x + mask.t().masked_fill(mask == 0, -5.0)

    check(Function(run, table=torch.randn(6, 6)), torch.randn(2, 6, 6), ops=["add"])


def test_a_written_buffer_that_an_input_flows_into_stays() -> None:
    def run(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        buffer = torch.zeros(2, 4)
        buffer.copy_(x)
        return buffer * 2

    assert "mul" in calls(check(Function(run), torch.randn(2, 4)))


def test_what_is_constant_along_a_dimension_is_stored_once_for_readers_that_broadcast() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        branch = F.relu(self.norm(self.bias.view(-1, 1, 1).expand(2, 4, 5, 5)))
        return x + branch

    norm = nn.BatchNorm2d(4)
    assert norm.running_mean is not None
    norm.running_mean.uniform_(-1, 1)
    graph = check(Function(run, norm=norm, bias=torch.randn(4)), torch.randn(2, 4, 5, 5), ops=["add"])
    assert [tuple(t.shape) for t in graph.state_dict().values()] == [(1, 4, 1, 1)]


def batchnorm(norm: nn.Module) -> nn.Module:
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "var" in name else tensor.uniform_(-1, 1)
    return norm


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_batch_norm_is_folded_into_the_convolution_before_it(bias: bool, groups: int) -> None:
    check(
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups, bias=bias), batchnorm(nn.BatchNorm2d(8))), torch.randn(2, 4, 6, 6), ops=["conv2d"]
    )


def test_batch_norms_after_linear_maps_and_without_affine_form_are_folded() -> None:
    check(nn.Sequential(nn.Linear(5, 7), batchnorm(nn.BatchNorm1d(7, affine=False))), torch.randn(3, 5), ops=["linear"])
    check(nn.Sequential(nn.Conv1d(5, 7, 3), batchnorm(nn.BatchNorm1d(7))), torch.randn(3, 5, 8), ops=["conv1d"])
    check(nn.Sequential(nn.Linear(5, 7), batchnorm(nn.BatchNorm1d(6))), torch.randn(3, 6, 5), ops=["linear", "mul", "add"])


def test_a_batch_norm_that_cannot_be_folded_is_a_product_and_a_sum() -> None:
    def shared(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y

    check(nn.Sequential(batchnorm(nn.BatchNorm2d(4)), nn.Conv2d(4, 8, 3)), torch.randn(2, 4, 6, 6), ops=["mul", "add", "conv2d"])
    check(
        Function(shared, conv=nn.Conv2d(4, 8, 3), norm=batchnorm(nn.BatchNorm2d(8))),
        torch.randn(2, 4, 6, 6),
        ops=["conv2d", "mul", "add", "add"],
    )


def test_weights_that_two_layers_share_are_folded_for_each() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.conv(F.relu(self.a(self.conv(x)))))

    model = Function(run, conv=nn.Conv2d(4, 4, 1), a=batchnorm(nn.BatchNorm2d(4)), b=batchnorm(nn.BatchNorm2d(4)))
    check(model, torch.randn(2, 4, 6, 6), ops=["conv2d", "relu", "conv2d"])


def test_constants_per_channel_are_folded_into_the_layer_also_through_a_residual() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return (x + self.a(x) * self.gamma) + self.beta

    check(Function(run, a=nn.Linear(6, 6), gamma=torch.rand(6), beta=torch.rand(1, 1, 6)), torch.randn(2, 3, 6), ops=["linear", "add"])


def test_a_constant_that_is_not_per_channel_is_not_folded() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) * self.rows

    check(Function(run, a=nn.Linear(6, 6), rows=torch.rand(3, 1)), torch.randn(2, 3, 6), ops=["linear", "mul"])


def test_parts_of_a_tuple_are_slices_and_selects() -> None:
    def run(_: nn.Module, x: Any) -> tuple[torch.Tensor, ...]:
        a, b = x.chunk(2, -1)
        c, _d, e = x.split([1, 4, 3], 1)
        return a.relu() + b, c.relu(), e.relu(), x.unbind(1)[2].relu()

    graph = check(Function(run), torch.randn(2, 8, 6))
    assert sorted(calls(graph)) == ["add", "relu", "relu", "relu", "relu", "select", "slice", "slice", "slice", "slice"]
    bounds = [tuple(n.args[1:4]) for n in graph.graph.nodes if operator_of(n) == "aten.slice"]
    assert bounds == [(2, 0, 3), (2, 3, 6), (1, 0, 1), (1, 5, 8)]


def test_moves_of_rows_go_before_a_linear_map() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.a(F.layer_norm(x, (6,)))  # [4, 3, 6]
        return y.view(2, 2, 3, 8).transpose(1, 2).roll(1, 1).reshape(2, 6, 8) + self.bias

    ops = ["layer_norm", "reshape", "permute", "roll", "reshape", "linear", "add"]
    check(Function(run, a=nn.Linear(6, 8), bias=torch.randn(2, 6, 8)), torch.randn(4, 3, 6), ops=ops)


def test_a_move_of_columns_stays_behind_the_linear_map() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.a(F.layer_norm(x, (6,))).transpose(1, 2)

    check(Function(run, a=nn.Linear(6, 8)), torch.randn(4, 3, 6), ops=["layer_norm", "linear", "permute"])


def test_permutes_go_behind_pointwise_operators_of_linear_maps() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (F.gelu(y) * self.scale + x).permute(0, 2, 3, 1).softmax(-1)

    ops = ["permute", "linear", "gelu", "mul", "permute", "add", "softmax"]
    graph = check(Function(run, a=nn.Linear(4, 4), scale=torch.rand(4, 1, 1)), torch.randn(2, 4, 5, 3))
    assert sorted(calls(graph)) == sorted(ops)
    assert [tuple(t.shape) for n, t in graph.state_dict().items() if "scale" in n] == [(4,)]


class Attention(nn.Module):
    """Attention written out, with a scale in one of three places and a mask that depends on the position."""

    bias: torch.Tensor | None

    def __init__(self, place: str, masked: bool) -> None:
        super().__init__()
        self.qkv, self.place = nn.Linear(12, 36), place
        self.register_buffer("bias", torch.randn(3, 5, 5) if masked else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * 0.3 if self.place == "query" else q) @ k.transpose(-2, -1)
        scores = scores / 2.5 if self.place == "scores" else scores
        if self.bias is not None:
            scores = scores + self.bias
            scores = (scores.view(1, 2, 3, 5, 5) + self.bias.sum(0)).view(2, 3, 5, 5)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("place", ["query", "scores", "nowhere"])
def test_attention_written_out_is_recognised(place: str, masked: bool) -> None:
    graph = check(Attention(place, masked), torch.randn(2, 5, 12))
    assert calls(graph).count("scaled_dot_product_attention") == 1
    assert not {"softmax", "matmul", "mul", "div", "add"} & set(calls(graph))
    (node,) = [n for n in graph.graph.nodes if "attention" in n.name or "attention" in str(n.target)]
    assert node.kwargs["scale"] == pytest.approx({"query": 0.3, "scores": 0.4, "nowhere": 1.0}[place])


@pytest.mark.parametrize("hidden", [None, float("-inf"), torch.finfo(torch.float32).min], ids=["bool", "infinite", "lowest"])
@pytest.mark.parametrize("diagonal", [0, 1], ids=["causal", "other"])
def test_a_constant_mask_of_all_later_keys_is_said_to_be_causal(hidden: float | None, diagonal: int) -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)

    seen = torch.ones(5, 5, dtype=torch.bool).tril(diagonal)
    mask = seen if hidden is None else torch.zeros(5, 5).masked_fill(~seen, hidden)
    graph = check(Function(run, mask=mask), torch.randn(2, 3, 5, 4), ops=["scaled_dot_product_attention"])
    (node,) = (n for n in graph.graph.nodes if n.op == "call_function")
    causal = len(node.args) > 5 and node.args[5]
    assert (bool(causal), node.args[3] is None) == ((True, True) if diagonal == 0 else (False, False))


def test_attention_weights_that_something_else_reads_stay() -> None:
    def run(_: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = (x @ x.transpose(1, 2)).softmax(-1)
        return weights @ x, weights

    check(Function(run), torch.randn(2, 5, 4), ops=["permute", "matmul", "softmax", "matmul"])


@pytest.mark.parametrize("name", NETWORKS)
def test_normalising_twice_changes_nothing_and_the_input_stays(name: str) -> None:
    given = program(name).graph
    before = str(given.graph)
    once = normalise_for_inference(given)
    assert str(given.graph) == before
    twice = normalise_for_inference(once)
    assert [str(n.target) for n in twice.graph.nodes if n.op == "call_function"] == [
        str(n.target) for n in once.graph.nodes if n.op == "call_function"
    ]
    with torch.no_grad():
        assert torch.equal(once(images(name))[0], twice(images(name))[0])


def test_kept_calls_keep_their_names() -> None:
    names = {n.name for n in program("resnet").nodes()}
    kept = [n.name for n in normalise_for_inference(program("resnet").graph).graph.nodes if n.op != "get_attr"]
    assert set(kept) <= names


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"does not accept the example's sizes|takes 1 inputs"):
        normalise_for_inference(program("vit").graph, ((images("vit", 3),), {}))
    with pytest.raises(CaptureError, match="takes 1 inputs but the example has 2"):
        normalise_for_inference(program("vit").graph, ((images("vit"), images("vit")), {}))


def test_the_shared_network_is_unharmed() -> None:
    normalise_for_inference(program("resnet").graph)
    x = images("resnet")
    with torch.no_grad():
        assert torch.equal(network("resnet")(x), network("resnet")(x))
        assert torch.allclose(program("resnet").graph(x), network("resnet")(x), atol=1e-5)


def test_a_constant_may_be_called_like_a_method_of_modules() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.tensor([1, 2, 3]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.get_buffer("table").to(torch.float32)

    check(Cast(), torch.randn(2, 3), ops=["mul"])


def test_a_filled_constant_without_dimensions_is_folded() -> None:
    class Flag(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.new_ones([]) * 2.0

    check(Flag(), torch.randn(2, 3), ops=["mul", "mul"])


def test_conversions_have_one_spelling_that_workloads_can_replay() -> None:
    class Convert(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.to("cpu", torch.bool).type_as(y) + x.to(torch.bool).float() * y

    x, y = torch.tensor([[0, 1, 2]]).repeat(2, 1), torch.randn(2, 3)
    graph = check(Convert(), x, y, ops=["to", "to", "to", "to", "mul", "add"])
    network = partition(graph, Target()).network
    torch.testing.assert_close(run_network(network, (x, y))[0], Convert()(x, y))
