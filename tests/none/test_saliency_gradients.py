import gc
import weakref
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from billhook.ir.errors import DataError
from billhook.passes.saliency import best_indices, retained
from billhook.passes.saliency_gradients import collect_gradients


def small() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def data(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(5, 3, generator=generator), torch.randint(2, (5,), generator=generator)) for _ in range(count)]


def test_gradients_equal_those_of_a_backward_pass_in_evaluation_mode() -> None:
    model = small()
    for found, (x, y) in zip(collect_gradients(model, data(), F.cross_entropy), data(), strict=True):
        reference = small().eval()
        torch.autograd.backward(F.cross_entropy(reference(x), y))
        for name, parameter in reference.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(found[name], parameter.grad)


def test_the_module_is_left_as_it_was() -> None:
    model = small().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = list(collect_gradients(model, data(), F.cross_entropy))
    assert float(found[0]["0.weight"].abs().sum()) > 0  # a parameter that the user froze is scored all the same
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert not model[0].weight.requires_grad
    assert model[0].bias.requires_grad
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_only_the_asked_number_of_batches_is_drawn() -> None:
    drawn: list[int] = []

    def loader() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for i, batch in enumerate(data(10)):
            drawn.append(i)
            yield batch

    calls: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))

    assert len(list(collect_gradients(small(), loader(), F.cross_entropy, 2, progress))) == 2
    assert drawn == [0, 1]
    assert calls == [("saliency", 1, 2), ("saliency", 2, 2)]


def test_gradients_of_earlier_batches_are_not_held() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    for found in collect_gradients(small(), data(4), F.cross_entropy):
        alive.append(weakref.ref(found["0.weight"]))
        del found
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "loader is empty"),
        ([torch.zeros(5, 3)], r"pair \(inputs, target\)"),
        ([(torch.zeros(5, 7), torch.zeros(5, dtype=torch.long))], r"does not accept a batch.*\(5, 7\)"),
        ([*data(1), (torch.full((5, 3), float("nan")), torch.zeros(5, dtype=torch.long))], "the loss of batch 1 is nan"),
        ([(torch.zeros(5, 3), torch.zeros(4, dtype=torch.long))], r"loss function fails on batch 0 .*\(5, 2\), target tensor \(4,\)"),
    ],
)
def test_bad_data_is_refused_in_one_line(loader: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(collect_gradients(small(), loader, F.cross_entropy))
    assert "\n" not in str(caught.value)


def test_a_gradient_that_is_not_finite_names_batch_and_parameter() -> None:
    def loss(output: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
        return (output - output.detach()).abs().sqrt().sum()  # finite, with an infinite slope at zero

    with pytest.raises(DataError, match=r"batch 0: the gradient of 0\.weight"):
        list(collect_gradients(small(), data(1), loss))


def test_a_loss_that_ignores_the_model_is_refused() -> None:
    with pytest.raises(DataError, match="does not depend"):
        list(collect_gradients(small(), data(1), lambda _o, y: y.float().mean()))
    with pytest.raises(DataError, match="must return one number"):
        list(collect_gradients(small(), data(1), lambda o, _y: o))


@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12))
def test_retained_is_what_the_best_indices_sum_to(values: list[float]) -> None:
    scores = np.array(values)
    value = retained(scores)
    kept = [best_indices(scores, k) for k in range(len(values) + 1)]
    assert [scores[list(indices)].sum() for indices in kept] == pytest.approx(value.tolist())
    assert all(set(a) < set(b) for a, b in pairwise(kept))
    assert all(list(indices) == sorted(indices) for indices in kept)


def test_of_equal_scores_the_lower_index_wins() -> None:
    assert best_indices(np.array([1.0, 2.0, 1.0, 1.0]), 3) == (0, 1, 2)
    with pytest.raises(DataError, match="keep 5 of 4"):
        best_indices(np.zeros(4), 5)
