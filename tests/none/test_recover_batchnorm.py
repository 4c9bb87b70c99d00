from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from billhook.ir.capture import capture
from billhook.ir.errors import DataError
from billhook.ir.plan import make_plan
from billhook.passes.cut import cut_graph
from billhook.passes.infer import infer_axes
from billhook.passes.recover_batchnorm import recalibrate_batchnorm

SIZES = (7, 4, 4, 2)  # uneven batches: each counts for what it is


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.conv2, self.bn2 = nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, eps=1e-3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(F.relu(self.bn(self.conv(x))))
        return self.head(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def make() -> Twice:
    torch.default_generator.manual_seed(0)
    model = Twice()
    nn.init.normal_(model.bn.weight, 1.0, 0.5)
    nn.init.normal_(model.bn.bias)
    model.bn.running_var.fill_(9.0)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    return model.eval()


def data(sizes: Sequence[int] = SIZES) -> list[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 2, 8, 8, generator=generator) * (1 + k) + k, 0) for k, n in enumerate(sizes)]


def moments(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.cat([p.transpose(0, 1).flatten(1) for p in parts], dim=1).double()
    return values.mean(1).float(), values.var(1).float()


def expected(model: Twice) -> dict[str, torch.Tensor]:
    """The definition, layer by layer: moments over all values, each batch normalised by its own statistics."""
    first = [model.conv(x) for x, _ in data()]
    normal = [F.batch_norm(v, None, None, model.bn.weight, model.bn.bias, training=True) for v in first]
    second = [model.conv2(F.relu(v)) for v in normal]
    (m1, v1), (m2, v2) = moments(first), moments(second)
    return {"bn.running_mean": m1, "bn.running_var": v1, "bn2.running_mean": m2, "bn2.running_var": v2}


def test_statistics_are_the_exact_moments_over_all_values() -> None:
    model = make()
    reference = expected(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert recalibrate_batchnorm(model, data()) == 2
    for name, tensor in model.state_dict().items():
        if name in reference:
            torch.testing.assert_close(tensor, reference[name], rtol=1e-5, atol=1e-6)
        else:
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_graph_gets_the_same_statistics_as_the_module() -> None:
    model = make()
    program = infer_axes(capture(model, (torch.randn(1, 2, 8, 8),)))
    graph = cut_graph(program, make_plan(program, {"conv.out": [0, 2, 3, 5]}))
    smaller = make()
    kept = torch.tensor([0, 2, 3, 5])
    smaller.conv.weight, smaller.conv.bias = nn.Parameter(model.conv.weight[kept]), nn.Parameter(model.conv.bias[kept])  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
    smaller.bn = nn.BatchNorm2d(4).eval()
    smaller.bn.weight, smaller.bn.bias = nn.Parameter(model.bn.weight[kept]), nn.Parameter(model.bn.bias[kept])
    smaller.conv2.weight = nn.Parameter(model.conv2.weight[:, kept])
    for training in (False, True):  # dropout stays off in either mode, and the mode stays
        graph.train(training)
        assert recalibrate_batchnorm(graph, data()) == recalibrate_batchnorm(smaller, data()) == 2
        assert graph.training == training
        buffers = dict(graph.named_buffers())
        for name, tensor in smaller.named_buffers():
            if "running" in name:
                torch.testing.assert_close(buffers[name], tensor, rtol=1e-5, atol=1e-6)
    graph.eval()
    x = data()[0][0]
    torch.testing.assert_close(graph(x), smaller.eval()(x), rtol=1e-4, atol=1e-5)


def test_batches_and_progress() -> None:
    calls: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))

    some, all_of_it = make(), make()
    recalibrate_batchnorm(some, data(), batches=2, progress=progress)
    recalibrate_batchnorm(all_of_it, data(SIZES[:2]))
    torch.testing.assert_close(some.state_dict(), all_of_it.state_dict(), rtol=0, atol=0)
    assert calls == [("batch norm statistics", 1, 2), ("batch norm statistics", 2, 2)]


def test_modes_survive() -> None:
    model = make().train()
    model.bn.eval()
    recalibrate_batchnorm(model, data())
    assert [m.training for m in model.children()] == [True, False, True, True, True, True]


def test_without_batch_norm_no_data_is_read() -> None:
    def untouched() -> object:
        raise AssertionError("read")
        yield

    assert recalibrate_batchnorm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), untouched()) == 0  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "empty"),
        ([(torch.zeros(2, 5, 8, 8), 0)], "does not accept"),
        ([*data((3,)), (torch.full((3, 2, 8, 8), float("nan")), 0)], "batch norm bn sees NaN"),
        ([(torch.zeros(1, 2, 5, 5), 0)], "batch norm bn2 gets one value per channel"),
    ],
)
def test_a_failed_pass_changes_nothing(loader: list[object], message: str) -> None:
    model, same = make(), make()
    with pytest.raises(DataError, match=message):
        recalibrate_batchnorm(model, loader)
    torch.testing.assert_close(model.state_dict(), same.state_dict(), rtol=0, atol=0)
    x = data()[0][0]
    torch.testing.assert_close(model(x), same(x), rtol=0, atol=0)  # no hook is left behind
