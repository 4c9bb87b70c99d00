"""What a plan may say, and what a cut network promises: batch sizes, modes, tied weights, both forms, the dense model untouched."""

import copy
from typing import Any, cast

import pytest
import torch
from axis_oracle import bench
from structures import STRUCTURES
from torch import nn
from torchvision_shim import models

import billhook as bh
from billhook.ir.errors import AxisError
from billhook.ir.plan import make_plan
from billhook.passes.cut import cut_graph
from billhook.passes.mask import mask_graph
from billhook.passes.oracle import relative_error


class Small(nn.Module):
    """Convolution, normalisation, dropout, a residual branch and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.b, self.c, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.n(self.a(x)).relu()
        x = x + self.c(self.b(x).relu())
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def small() -> bh.Program:
    torch.default_generator.manual_seed(0)
    return bh.trace(Small(), torch.randn(1, 3, 6, 6))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"a.out": [0, 8]}, r"a\.out: indices must lie in 0\.\.7"),
        ({"a.out": [-1, 2]}, r"0\.\.7"),
        ({"a.out": [1, 1]}, "named twice"),
        ({"a.out": [0, 1], "n.out": [0, 2]}, "named twice, with different indices"),
        ({"head.out": [0]}, r"head\.out is frozen: an output of the program"),
        ({"a.in": [0]}, r"frozen: an input of the program"),
        ({"b.uot": [0]}, r"no axis is called 'b\.uot'; did you mean .*b\.out"),
    ],
)
def test_a_bad_plan_is_refused(small: bh.Program, kept: dict[str, list[int]], message: str) -> None:
    with pytest.raises(AxisError, match=message):
        make_plan(small, kept)


def test_size_nothing_needs_readers_that_sum() -> None:
    program = bh.trace(nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)), torch.randn(2, 3))
    with pytest.raises(AxisError, match="size 0"):
        make_plan(program, {"0.out": []})


class _Length(nn.Module):
    """Divides by the length of a vector, or by a sum of products as linear attention does; bounded away from zero, or not."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.a, self.b, self.form = nn.Linear(3, 6), nn.Linear(3, 6), form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(x)
        if self.form == "length":
            a = a / a.pow(2).sum(-1, keepdim=True).sqrt()
        elif self.form == "bounded length":
            a = a / (a.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt()
        products = a.relu() @ b.relu().transpose(-2, -1)
        return products / products.sum(-1, keepdim=True) if self.form == "linear attention" else products


@pytest.mark.parametrize(("form", "additive"), [("length", False), ("bounded length", True), ("linear attention", False)])
def test_what_a_divisor_sums_over_keeps_an_index(form: str, additive: bool) -> None:
    program = bh.trace(_Length(form), torch.randn(1, 4, 3))
    assert program.axis("a.out").prunable
    assert program.axis("a.out").additive is additive


def test_a_sum_over_nothing_has_its_own_element_type() -> None:
    """No state of a mixed network needs to have the type of a value that its code casts to."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x).float().sum(-1, keepdim=True).double() + self.b(x)

    program = bh.trace(Mixed().double(), torch.randn(2, 3, dtype=torch.float64))
    plan, x = make_plan(program, {"a.out": []}), torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(cut_graph(program, plan)(x), mask_graph(program, plan)(x))


def test_a_whole_axis_and_an_alias_are_no_cut_of_their_own(small: bh.Program) -> None:
    assert make_plan(small, {"a.out": range(8)}).kept == {}
    assert make_plan(small, {"n.out": [3, 1]}).kept == make_plan(small, {"a.out": [1, 3]}).kept
    assert make_plan(small, {"n.out": [1, 3], "a.out": [1, 3]}).kept == {"a.out": (1, 3)}


def test_an_empty_plan_is_the_dense_network(small: bh.Program) -> None:
    x = torch.randn(2, 3, 6, 6)
    plan = make_plan(small, {})
    assert torch.equal(cut_graph(small, plan)(x), small.graph(x))
    assert torch.equal(mask_graph(small, plan)(x), small.graph(x))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_cut_and_mask_run_at_any_batch_size(small: bh.Program, batch: int) -> None:
    plan = make_plan(small, {"a.out": [0, 3, 4], "b.out": [1]})
    x = torch.randn(batch, 3, 6, 6)
    cut, masked = cut_graph(small, plan)(x), mask_graph(small, plan)(x)
    assert cut.shape == (batch, 2)
    assert relative_error([cut], [masked]) < 1e-5


@pytest.mark.parametrize("name", ["FusedQKV_view", "WindowMerging", "ClassToken", "GroupedQuery", "InPlace", "Recurrent_LSTM_2_True"])
def test_views_and_expansions_follow_the_batch(name: str) -> None:
    model, (args, kwargs) = STRUCTURES[name].build()
    found = bench(model, *args, **kwargs)
    plan = make_plan(found.program, found.half())
    thrice = [torch.cat([v, v, v]) for v in found.args]
    cut, masked = cut_graph(found.program, plan)(*thrice), mask_graph(found.program, plan)(*thrice)
    assert cut.shape[0] == 3 * found.dense[0].shape[0]
    assert relative_error([cut], [masked]) < 1e-9


def test_train_and_eval_switch_dropout_and_statistics(small: bh.Program) -> None:
    model = cut_graph(small, make_plan(small, {"a.out": [0, 3, 4]}))
    x = torch.randn(4, 3, 6, 6)
    still = model(x)
    mean = model.get_buffer("n.running_mean").clone()
    model.train()
    assert model.training
    assert not torch.equal(model(x), model(x)), "dropout must be random while training"
    assert not torch.equal(model.get_buffer("n.running_mean"), mean), "statistics must move while training"
    copied = copy.deepcopy(model).eval()
    model.get_buffer("n.running_mean").copy_(mean)
    model.eval()
    assert not copied.training
    assert torch.equal(copied(x), copied(x))
    assert model(x).shape == still.shape


def test_what_the_model_does_in_evaluation_as_well_is_no_mode() -> None:
    """Normalisation without running statistics keeps taking those of its input, in both modes."""
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6, track_running_stats=False), nn.Conv2d(6, 2, 1))
    program = bh.trace(net, torch.randn(2, 3, 4, 4))
    model = cut_graph(program, make_plan(program, {"0.out": [0, 2]}))
    x = torch.randn(2, 3, 4, 4)
    before = model(x)
    assert torch.equal(model.train()(x), before)
    assert torch.equal(model.eval()(x), before)


def test_both_forms_train_and_leave_the_dense_model_alone(small: bh.Program) -> None:
    assert small.model is not None
    dense = {name: value.clone() for name, value in small.model.state_dict().items()}
    for kept in ({"a.out": [0, 3, 4]}, {"a.out": [0, 3, 4], "b.out": []}):
        pruned = bh.prune(small, kept)
        assert pruned.form == ("module" if kept.get("b.out", [0]) else "graph")
        model = pruned.model.train()
        optimiser = cast(Any, torch.optim.SGD(model.parameters(), lr=0.1))
        before = [p.clone() for p in model.parameters()]
        model(torch.randn(4, 3, 6, 6)).square().mean().backward()
        optimiser.step()
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for name, value in small.model.state_dict().items():
        assert torch.equal(value, dense[name]), name


def test_the_module_form_is_the_users_class_and_shares_its_tensors_with_the_program() -> None:
    torch.default_generator.manual_seed(0)
    program = bh.trace(models.resnet18(num_classes=4), torch.randn(1, 3, 32, 32))
    kept = {axis.name: range(0, axis.size, 2) for axis in program.axes if axis.prunable}
    pruned = bh.prune(program, kept)
    assert type(pruned.model) is models.resnet.ResNet
    assert pruned.form == "module"
    assert pruned.model.conv1.out_channels == 32
    assert cast(Any, pruned.model.layer1[0]).bn1.num_features == 32
    assert pruned.model.fc.in_features == 256
    assert pruned.model.training, "the mode of the dense model is kept"
    pruned.model.eval()
    x = torch.randn(3, 3, 32, 32)
    assert relative_error([pruned.model(x)], [pruned.program.graph(x)]) < 1e-5
    with torch.no_grad():
        pruned.model.conv1.weight.mul_(2.0)
    assert relative_error([pruned.model(x)], [pruned.program.graph(x)]) < 1e-5


def test_every_module_keeps_the_mode_of_its_dense_one() -> None:
    """A pretrained model in evaluation mode inside a wrapper that never left training mode, and a frozen part inside a trained one."""

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Small().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    model = Wrapper()
    model.inner.c.train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes[""]
    assert not modes["inner.drop"]
    pruned = bh.prune(bh.trace(model, torch.randn(1, 3, 6, 6)), {"inner.a.out": [0, 3, 4]})
    assert pruned.form == "module"
    assert {name: module.training for name, module in pruned.model.named_modules()} == modes
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_a_class_that_keeps_widths_of_its_own_falls_back_on_the_graph() -> None:
    torch.default_generator.manual_seed(0)
    model = models.VisionTransformer(image_size=32, patch_size=16, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=32, num_classes=4)
    program = bh.trace(model, torch.randn(1, 3, 32, 32))
    kept = {axis.name: range(0, axis.size, 2) for axis in program.axes if axis.prunable}
    pruned = bh.prune(program, kept)
    assert pruned.form == "graph"
    assert pruned.why_graph
    assert set(dict(pruned.model.named_parameters())) == set(dict(model.named_parameters()))
    assert relative_error([pruned.model(torch.ones(3, 3, 32, 32))], [bh.mask(program, kept)(torch.ones(3, 3, 32, 32))]) < 1e-4


@pytest.mark.parametrize("name", ["TiedLinears", "TiedEmbedding"])
def test_tied_weights_stay_tied(name: str) -> None:
    model, (args, kwargs) = STRUCTURES[name].build()
    program = bh.trace(model, args, kwargs)
    axis = next(a.name for a in program.axes if a.prunable and len(a.members) > 3)
    for pruned in (bh.prune(program, {axis: [0, 2, 5]}).model, cut_graph(program, make_plan(program, {axis: [0, 2, 5]}))):
        named = dict(pruned.named_parameters(remove_duplicate=False))
        pair = ("b.weight", "c.weight") if name == "TiedLinears" else ("embed.weight", "head.weight")
        assert named.get(pair[0], named.get(pair[1])) is named.get(pair[1], named.get(pair[0]))
        assert sum(p.shape == named[next(n for n in pair if n in named)].shape for p in pruned.parameters()) >= 1
        assert len(list(pruned.parameters())) == len(list(model.parameters()))


def test_the_program_of_a_cut_network_can_be_cut_again(small: bh.Program) -> None:
    once = bh.prune(small, {"a.out": [0, 2, 4, 6]})
    once.model.train()
    twice = bh.prune(once.program, {"a.out": [1, 3]})
    straight = bh.prune(small, {"a.out": [2, 6]})
    x = torch.randn(2, 3, 6, 6)
    assert relative_error([twice.model.eval()(x)], [straight.model.eval()(x)]) < 1e-5
