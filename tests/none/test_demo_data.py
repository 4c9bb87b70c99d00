import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from billhook.demo import data as demo
from billhook.demo.data import CELL, HEIGHT, Difficulty, Pictures, score, two_digits
from billhook.demo.net import CLASSES, WIDTHS, ResNet, build, example
from billhook.ir.capture import capture
from billhook.ir.errors import ToolchainError
from billhook.passes.infer import infer_axes

EASY = Difficulty(noise=0.0, fade=0.0, patch=0, shift=0.0, turn=0.0, zoom=(1.0, 1.0))


def test_pictures_have_the_promised_form() -> None:
    train, test = two_digits(train=300, test=200)
    assert (len(train), len(test)) == (300, 200)
    assert train.pictures.shape == (300, 1, HEIGHT, 2 * CELL)
    assert train.pictures.dtype == torch.float32
    assert train.pictures.is_contiguous()
    assert abs(float(train.pictures.mean())) < 0.1
    assert abs(float(train.pictures.std()) - 1) < 0.1
    assert train.numbers.dtype == torch.int64
    assert 0 <= int(train.numbers.min()) <= int(train.numbers.max()) < CLASSES


def test_equal_seeds_give_equal_pictures_and_others_do_not() -> None:
    one, two, other = (two_digits(train=20, test=20, seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(one, two, other, strict=True):
        assert torch.equal(a.pictures, b.pictures)
        assert torch.equal(a.numbers, b.numbers)
        assert not torch.equal(a.pictures, c.pictures)


def test_the_test_pictures_do_not_depend_on_the_training_pictures() -> None:
    assert torch.equal(two_digits(train=5, test=20)[1].pictures, two_digits(train=9, test=20)[1].pictures)


def test_the_numbers_tell_what_the_pictures_show() -> None:
    """Without any distortion each half is nearest to a scan of the digit that the label says."""
    scans, labels = demo._scans()  # pyright: ignore[reportPrivateUsage]
    _, test = two_digits(train=1, test=50, difficulty=EASY)
    bank = demo._cells(scans, EASY, torch.Generator()).flatten(1)  # pyright: ignore[reportPrivateUsage]
    for half, digits in enumerate((test.numbers // 10, test.numbers % 10)):
        cells = (test.pictures[:, 0, :, half * CELL : (half + 1) * CELL] * 0.29 + 0.16).flatten(1)
        distance, nearest = torch.cdist(cells, bank).min(1)
        assert float(distance.max()) < 0.05  # rounding of cdist; two scans are further apart than 1
        assert torch.equal(labels[nearest], digits)


def test_no_scan_serves_both_training_and_test() -> None:
    train, test = two_digits(train=1500, test=1000, difficulty=EASY)
    seen, held_out = (
        {half.tobytes() for picture in p.pictures[:, 0].mul(1000).round().int().numpy() for half in (picture[:, :CELL], picture[:, CELL:])}
        for p in (train, test)
    )
    assert len(seen) > 900
    assert len(held_out) > 600
    assert not seen & held_out


@pytest.mark.parametrize("part", [{"noise": 0.2}, {"fade": 0.5}, {"patch": 8}, {"shift": 3.0}, {"turn": 20.0}, {"zoom": (0.7, 0.9)}])
def test_every_difficulty_changes_the_pictures(part: dict[str, Any]) -> None:
    harder = replace(EASY, **part)
    assert not torch.equal(*(two_digits(train=1, test=10, difficulty=d)[1].pictures for d in (EASY, harder)))


def test_loaders_are_shuffled_by_the_global_seed() -> None:
    train, _ = two_digits(train=40, test=1)
    loader = train.loader(8, shuffle=True)
    orders: list[torch.Tensor] = []
    for seed in (0, 0, 1):
        torch.default_generator.manual_seed(seed)
        orders.append(torch.cat([numbers for _, numbers in loader]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(torch.cat([numbers for _, numbers in train.loader(7)]), train.numbers)


def test_a_recorded_teacher_comes_with_the_targets() -> None:
    train, _ = two_digits(train=20, test=1)
    logits = torch.arange(20.0)[:, None].expand(20, CLASSES)
    seen: list[int] = []
    for pictures, target in train.loader(5, shuffle=True, teacher=logits):
        numbers, soft = target
        rows = [int(row) for row in soft[:, 0]]
        assert torch.equal(pictures, train.pictures[rows])
        assert torch.equal(numbers, train.numbers[rows])
        seen += rows
    assert sorted(seen) == list(range(20))


def test_score_counts_right_answers() -> None:
    numbers = torch.arange(10)
    data = Pictures(torch.arange(10.0).reshape(10, 1, 1, 1), numbers)

    class Oracle(torch.nn.Module):
        """Right on all but the first two, with certainty 0.9."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer = x.flatten().long()
            answer = torch.where(answer < 2, 1 - answer, answer)
            return torch.full((len(x), 10), 0.1 / 9).log().scatter(1, answer[:, None], torch.tensor(0.9).log().expand(len(x), 1))

    model = Oracle().train()
    result = score(model, data, batch=3)
    assert result.accuracy == pytest.approx(0.8)
    assert result.right.tolist() == [False, False] + [True] * 8
    p = torch.tensor([0.1 / 9] * 2 + [0.9] * 8)
    assert result.nll == pytest.approx(float(-p.log().mean()))
    assert model.training


def test_scikit_learn_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ToolchainError, match=r"pip install 'billhook\[demo\]'"):
        two_digits(1, 1)


def test_the_network_is_repeatable_and_leaves_the_random_state() -> None:
    state = torch.random.get_rng_state()
    a, b, c = build(0), build(0), build(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
    assert not torch.equal(a.stem.weight, c.stem.weight)


def test_the_network_has_the_maps_and_classes_that_it_promises() -> None:
    model = build().eval()
    x = example().expand(3, 1, HEIGHT, 2 * CELL)
    shapes: list[tuple[int, ...]] = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape)))
    assert model(x).shape == (3, CLASSES)
    assert shapes == [(3, WIDTHS[0], 16, 32), (3, WIDTHS[1], 8, 16), (3, WIDTHS[2], 4, 8)]


def test_all_widths_of_the_network_can_be_cut() -> None:
    program = infer_axes(capture(ResNet(widths=(4, 6, 8), blocks=(2, 1, 1), classes=5).eval(), (example(),)))
    sizes = {axis.name: axis.size for axis in program.axes if axis.prunable}
    assert sorted(sizes.values()) == [4, 4, 4, 6, 6, 8, 8]
    assert [axis.size for axis in program.axes if not axis.prunable] == [5]
