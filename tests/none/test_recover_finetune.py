from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from billhook.ir.errors import DataError, OptionError
from billhook.passes.recover import recover
from billhook.passes.recover_config import FinetuneConfig, learning_rate_share, make_optimizer
from billhook.passes.recover_distill import distillation_loss, record, recorded_teacher
from billhook.passes.recover_finetune import finetune


def make(seed: int = 0, width: int = 16) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(width * 4, 3))


def loader(batch: int = 16) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Three classes: which third of the image is bright."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (96,), generator=generator)
    x = torch.randn(96, 1, 4, 4, generator=generator) * 0.3
    x[torch.arange(96), 0, y] += 1
    return DataLoader(TensorDataset(x, y), batch, shuffle=True)


def error(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return sum(float(F.cross_entropy(model(x), y)) for x, y in loader()) / len(loader())


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(epochs=4, lr=0.01),
        FinetuneConfig(epochs=4, lr=0.1, optimizer="sgd", weight_decay=1e-4, clip=1.0),
        FinetuneConfig(epochs=4, lr=0.01, precision="bfloat16", channels_last=True),
        FinetuneConfig(epochs=4, lr=0.01, precision="auto"),
    ],
)
def test_training_lowers_the_loss_and_reports_what_it_did(config: FinetuneConfig) -> None:
    model = make()
    before = error(model)
    calls: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))

    result = finetune(model, None, loader(), config, progress=progress)
    assert error(model) < before / 3
    assert result.steps == 24
    assert len(result.losses) == 4
    assert result.losses[-1] < result.losses[0]
    assert calls == [("fine-tuning", i + 1, 24) for i in range(24)]
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())


def test_equal_seeds_give_equal_weights_and_the_callers_random_state_stays() -> None:
    config = FinetuneConfig(epochs=2, lr=0.01)
    shared = loader()
    state = torch.random.get_rng_state()
    results: list[dict[str, torch.Tensor]] = []
    for seed in (0, 0, 1):
        model, teacher = make(), make(7)
        torch.random.set_rng_state(state)
        finetune(model, teacher, shared, replace(config, seed=seed))
        assert torch.equal(torch.random.get_rng_state(), state)
        results.append(dict(model.state_dict()))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0]["0.weight"], results[2]["0.weight"])


def test_one_step_of_sgd_follows_the_formula() -> None:
    batch = next(iter(loader()))
    model, reference = make()[:4], make()[:4]
    model.add_module("head", nn.Linear(64, 3))
    reference.add_module("head", nn.Linear(64, 3))
    reference.load_state_dict(model.state_dict())
    teacher = make(3)
    config = FinetuneConfig(epochs=1, lr=0.1, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup=0.0, distill=0.75, temperature=4.0)
    finetune(model, teacher, [batch], config)
    x, y = batch
    out = reference.train()(x)
    soft = F.softmax(teacher.eval()(x).detach() / 4, 1)
    divergence = (soft * (soft.log() - F.log_softmax(out / 4, 1))).sum(1).mean()
    torch.autograd.backward(0.25 * F.cross_entropy(out, y) + 0.75 * 16 * divergence)
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        assert q.grad is not None
        torch.testing.assert_close(p, q - 0.1 * q.grad, rtol=1e-4, atol=1e-6)


def test_the_teacher_is_used_as_it_is_and_left_alone() -> None:
    teacher = make(3).train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    model = make()
    finetune(model, teacher, loader(), FinetuneConfig(epochs=6, lr=0.02, distill=1.0))
    assert teacher.training
    torch.testing.assert_close(dict(teacher.state_dict()), before, rtol=0, atol=0)
    x = next(iter(loader()))[0]
    with torch.no_grad():
        agreement, stranger = (float(distillation_loss(m.eval()(x), teacher.eval()(x), 1.0)) for m in (model, make()))
    assert agreement < 0.2 * stranger


def test_distillation_handles_logits_per_position() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=generator), torch.randn(2, 5, 3, generator=generator)
    flat = [t.movedim(1, -1).reshape(6, 5) for t in (a, b)]
    torch.testing.assert_close(distillation_loss(a, b, 2.0), distillation_loss(flat[0], flat[1], 2.0))
    assert float(distillation_loss(a, a, 2.0)) == pytest.approx(0, abs=1e-6)


def test_a_recorded_teacher_teaches_as_a_live_one() -> None:
    teacher, live, recorded = make(3), make(), make()
    config = FinetuneConfig(epochs=2, lr=0.01, distill=0.7)
    x, y = (torch.cat(parts) for parts in zip(*loader(), strict=True))
    plain = DataLoader(TensorDataset(x, y), 16, shuffle=True)
    logits = record(teacher, DataLoader(TensorDataset(x, y), 16))
    samples: Any = list(zip(x, zip(y, logits, strict=True), strict=True))
    soft: DataLoader[Any] = DataLoader(samples, 16, shuffle=True)
    first = finetune(live, teacher, plain, config)
    second = finetune(recorded, None, soft, config, recorded_teacher(config))
    assert first.losses == pytest.approx(second.losses, rel=1e-4)
    torch.testing.assert_close(dict(live.state_dict()), dict(recorded.state_dict()), rtol=1e-3, atol=1e-4)
    with pytest.raises(DataError, match="empty"):
        record(teacher, [])


def test_auto_computes_in_bfloat16_only_where_that_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    x = next(iter(loader()))[0]
    exact = record(make(), [(x, 0)])
    for native in (False, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native, "avx2": True})
        found = record(make(), [(x, 0)], precision="auto")
        assert found.dtype == torch.float32
        assert torch.equal(found, exact) == (not native)
        torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)


def test_weight_decay_spares_vectors_and_frozen_parameters_stay() -> None:
    model = make()
    frozen = model.get_parameter("0.weight").requires_grad_(False)
    decayed, spared = make_optimizer(model.parameters(), FinetuneConfig()).param_groups
    assert [p is model.get_parameter("5.weight") for p in decayed["params"]] == [True]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert len(spared["params"]) == 4
    before = frozen.detach().clone()
    finetune(model, None, loader(), FinetuneConfig(epochs=1))
    assert torch.equal(frozen, before)


@given(st.integers(1, 200), st.floats(0, 0.99))
def test_the_learning_rate_rises_then_falls(steps: int, warmup: float) -> None:
    shares = [learning_rate_share(i, steps, warmup) for i in range(steps)]
    top = round(steps * warmup)
    assert all(0 < s <= 1 for s in shares)
    assert shares == sorted(shares[:top]) + sorted(shares[top:], reverse=True)
    if top < steps:
        assert shares[top] == 1
        assert learning_rate_share(steps, steps, warmup) == pytest.approx(0)


def test_keyword_and_tuple_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.head(a + b)

    a, y = torch.ones(2, 4), torch.tensor([0, 1])
    batches = [({"a": a, "b": a}, y), ((a, a), y)]
    assert finetune(Sum(), None, batches, FinetuneConfig(epochs=1)).steps == 2


class NoLength:
    def __iter__(self) -> object:
        return iter([])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "loader is empty"),
        (NoLength(), "no length"),
        ([(torch.full((4, 1, 4, 4), float("inf")), torch.zeros(4, dtype=torch.long))], r"loss of batch 0 is nan"),
        ([(torch.zeros(4, 3, 4, 4), torch.zeros(4, dtype=torch.long))], "does not accept"),
    ],
)
def test_bad_data_is_refused(batches: list[object], message: str) -> None:
    model = make()
    with pytest.raises(DataError, match=message):
        finetune(model, None, batches, FinetuneConfig(epochs=1))
    assert model.training


def test_distillation_of_other_outputs_is_refused() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.head(x), x

    batches = [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(DataError, match="distillation needs logits"):
        finetune(Pair(), Pair(), batches, FinetuneConfig(epochs=1))
    finetune(Pair(), Pair(), batches, FinetuneConfig(epochs=1, distill=0), lambda out, y: F.cross_entropy(out[0], y))


@pytest.mark.parametrize("field", ["epochs", "lr", "momentum", "weight_decay", "warmup", "distill", "temperature", "clip"])
def test_options_out_of_range_are_refused(field: str) -> None:
    wrong: dict[str, Any] = {field: -1}
    with pytest.raises(OptionError, match=field):
        FinetuneConfig(**wrong)


def test_recover_takes_a_config_or_a_function() -> None:
    dense, model = make(), make()
    assert recover(model, dense, loader(), FinetuneConfig(epochs=1)) is not None
    statistics = model.get_buffer("1.running_mean").clone()
    recover(model, dense, loader(), None)
    assert not torch.equal(model.get_buffer("1.running_mean"), statistics)
    seen: list[tuple[nn.Module, nn.Module]] = []
    assert recover(model, dense, None, lambda student, teacher: seen.append((student, teacher))) is None
    assert seen == [(model, dense)]
    with pytest.raises(DataError, match="needs a data loader"):
        recover(model, dense, None, FinetuneConfig())

    def spoil(student: nn.Module, _teacher: nn.Module) -> None:
        with torch.no_grad():
            student.get_parameter("5.bias").fill_(float("nan"))

    with pytest.raises(DataError, match=r"5\.bias holds NaN"):
        recover(model, dense, None, spoil)
