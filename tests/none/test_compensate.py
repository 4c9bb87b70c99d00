"""Compensation against numpy's least squares on spelled-out layers, and what it gains on whole networks."""

from typing import Any

import numpy as np
import pytest
import torch
from small_networks import images
from small_networks import network as zoo_network
from small_networks import program as zoo_program
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook.ir.errors import DataError, OptionError
from billhook.passes.compensate import absorb, reconstruct, reform
from billhook.passes.saliency import Data


class Net(nn.Module):
    def __init__(self, conv: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3) if conv else nn.Linear(6, 12)
        self.second = nn.Conv2d(8, 5, 2) if conv else nn.Linear(12, 4)

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.first(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.inner(x))


def make(conv: bool) -> tuple[Net, torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.default_generator.manual_seed(0)
    model = Net(conv).eval()
    shape = (2, 6, 6) if conv else (6,)
    mixed = torch.randn(64, 4) @ torch.randn(4, int(np.prod(shape)))  # correlated inputs: something to predict removed channels from
    x = mixed.reshape(64, *shape) + 0.3 * torch.randn(64, *shape)
    return model, x, [(x[:40], x[:40]), (x[40:], x[40:])]


KEPT = {True: (0, 2, 3, 5, 6), False: (0, 1, 3, 4, 6, 8, 9, 11)}


def features(model: Net, x: torch.Tensor, conv: bool) -> Any:
    with torch.no_grad():
        inner = model.inner(x)
    return (F.unfold(inner, 2).transpose(1, 2).reshape(-1, 32) if conv else inner).double().numpy()


@pytest.mark.parametrize("conv", [True, False])
@pytest.mark.parametrize("how", [reform, reconstruct])
def test_the_reader_is_numpys_least_squares(conv: bool, how: Any) -> None:
    model, x, batches = make(conv)
    axis = "first.out"
    program = bh.trace(model, x[:1])
    pruned = bh.prune(program, {axis: KEPT[conv]})
    assert how(program, pruned, Data(batches, F.mse_loss), 1e-9) == 1
    full = features(model, x, conv)
    taps = 4 if conv else 1
    columns = (np.array(KEPT[conv])[:, None] * taps + np.arange(taps)).ravel()
    weight = model.second.weight.detach().double().flatten(1).numpy()
    bias: Any = model.second.bias
    wanted = full @ weight.T + bias.detach().double().numpy()
    design = np.concatenate([full[:, columns], np.ones((len(full), 1))], axis=1)
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    small: Any = pruned.model.get_submodule("second")
    np.testing.assert_allclose(small.weight.detach().flatten(1).numpy(), solution[:-1].T, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(small.bias.detach().numpy(), solution[-1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("how", [reform, reconstruct, absorb])
def test_what_was_repaired_once_stays_as_it_is(how: Any) -> None:
    model, x, batches = make(conv=False)
    program = bh.trace(model, x[:1])
    pruned = bh.prune(program, {"first.out": KEPT[False]})
    states: list[dict[str, torch.Tensor]] = []
    for _ in range(2):
        how(program, pruned, Data(batches, F.mse_loss))
        states.append({name: t.clone() for name, t in pruned.model.state_dict().items()})
    torch.testing.assert_close(states[0], states[1])


def test_absorption_keeps_the_mean_output() -> None:
    model, x, batches = make(conv=False)
    program = bh.trace(model, x[:1])
    pruned = bh.prune(program, {"first.out": KEPT[False]})
    assert absorb(program, pruned, Data(batches, F.mse_loss)) == 1
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(x).mean(0), model(x).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit", "swin", "densenet"])
def test_networks_come_closer_to_the_dense_one(name: str) -> None:
    """Layer by layer, the logits come closer on the calibration data; a one-pass correction may not help every network, but harms none
    much. The dense network stays as it was.
    """
    dense, program = zoo_network(name), zoo_program(name)
    before = {n: t.clone() for n, t in dense.state_dict().items()}
    x = images(name, 8)
    rng = np.random.default_rng(0)
    inner = [a for a in program.axes if a.prunable and a.size >= 8 and not a.mixing][:4]
    kept = {a.name: sorted(rng.choice(a.size, a.size * 3 // 4, replace=False).tolist()) for a in inner}
    data = Data([(x, x)], F.mse_loss)
    with torch.no_grad():
        wanted = dense(x)

    def error(how: Any) -> float:
        pruned = bh.prune(program, kept)
        if how is not None:
            assert how(program, pruned, data) > 0
        with torch.no_grad():
            return float((pruned.model.eval()(x) - wanted).norm() / wanted.norm())

    plain = error(None)
    assert error(reconstruct) < plain
    assert error(reform) < 1.1 * plain
    assert all(torch.equal(before[n], t) for n, t in dense.state_dict().items())


def test_bad_input_is_named() -> None:
    model, x, batches = make(conv=False)
    program = bh.trace(model, x[:1])
    pruned = bh.prune(program, {"first.out": KEPT[False]})
    for how in (reform, reconstruct):
        with pytest.raises(DataError, match="empty"):
            how(program, pruned, Data([], F.mse_loss))
        with pytest.raises(OptionError, match="ridge must be 0 or more"):
            how(program, pruned, Data(batches, F.mse_loss), -1.0)
    with pytest.raises(DataError, match="does not accept"):
        reform(program, pruned, Data([(torch.randn(3, 5), x)], F.mse_loss))
