"""The data of the tasks: made from what ships inside packages, small enough for one core and hard enough not to saturate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from billhook.demo.data import two_digits

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LETTERS = 96  # printable ASCII and the line feed
CONTEXT = 64  # characters that the language model sees
TEST_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Inputs [N, ...] and what is to be said about them, [N, ...]."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def loader(self, batch: int, shuffle: bool = False) -> "DataLoader[tuple[torch.Tensor, ...]]":
        """Batches (inputs, targets); the order of a shuffled loader follows torch's global seed."""
        return DataLoader(TensorDataset(self.inputs, self.targets), batch, shuffle=shuffle, drop_last=shuffle)

    def first(self, count: int) -> "Split":
        """The first `count` of them."""
        return Split(self.inputs[:count], self.targets[:count])


def pictures(train: int, test: int) -> tuple[Split, Split]:
    """(training, test) pictures [N, 1, 16, 32] of two-digit numbers: the demo's at half the resolution; tests show other scans."""
    parts = two_digits(train, test)
    return Split(F.avg_pool2d(parts[0].pictures, 2), parts[0].numbers), Split(F.avg_pool2d(parts[1].pictures, 2), parts[1].numbers)


def tens(train: int, test: int) -> tuple[Split, Split]:
    """The same pictures, and the left one of their two digits."""
    parts = pictures(train, test)
    return Split(parts[0].inputs, parts[0].targets // 10), Split(parts[1].inputs, parts[1].targets // 10)


def shapes(train: int, test: int) -> tuple[Split, Split]:
    """(training, test) noisy pictures [N, 1, 16, 32] of a disc, a box and a cross that may cover each other, and what each pixel shows.

    Classes [N, 16, 32]: 0 ground, 1 disc, 2 box, 3 cross.
    """
    return _shapes(train, 1), _shapes(test, 2)


def _shapes(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    rows, columns = torch.arange(16.0)[None, :, None], torch.arange(32.0)[None, None, :]
    classes = torch.zeros(count, 16, 32, dtype=torch.int64)
    ink = draw(-0.5, 0.5).expand(count, 16, 32).clone()
    for label in (1, 2, 3):
        y, x, radius, bright = draw(3, 13), draw(3, 29), draw(3.0, 6.0), draw(0.7, 1.7)
        dy, dx = (rows - y).abs(), (columns - x).abs()
        cross = (torch.minimum(dy, dx) < 0.45 * radius) & (torch.maximum(dy, dx) < radius)
        inside = {1: dy.square() + dx.square() < radius.square(), 2: torch.maximum(dy, dx) < 0.9 * radius, 3: cross}[label]
        classes[inside] = label
        ink = torch.where(inside, bright, ink)
    noise = 0.35 * torch.randn(count, 16, 32, generator=generator)
    return Split((ink + noise)[:, None], classes)


def text(train: int, test: int) -> tuple[Split, Split]:
    """(training, test) windows [N, CONTEXT] of the documentation that ships with Python (`pydoc_data.topics`), and each next character.

    The last tenth of every topic is for the tests, so both are about the same things and share no sentence.
    """
    from pydoc_data.topics import topics

    parts: tuple[list[int], list[int]] = ([], [])
    for name in sorted(topics):
        letters = [_letter(c) for c in topics[name]]
        cut = round((1 - TEST_SHARE) * len(letters))
        parts[0].extend(letters[:cut])
        parts[1].extend(letters[cut:])
    return _windows(parts[0], train, 1), _windows(parts[1], test, 2)


def _letter(character: str) -> int:
    code = ord(character)
    return code - 31 if 32 <= code < 127 else 0  # 0: the line feed, and whatever else there is


def _windows(letters: list[int], count: int, seed: int) -> Split:
    all_letters = torch.tensor(letters)
    starts = torch.randint(len(letters) - CONTEXT, (count,), generator=torch.Generator().manual_seed(seed))
    drawn = all_letters[starts[:, None] + torch.arange(CONTEXT + 1)]
    return Split(drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous())


def everywhere(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of logits [N, ..., classes] over all positions of targets [N, ...]."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


@dataclass(frozen=True, slots=True)
class Score:
    """Share of right answers over all positions, and mean negative log-likelihood in nats."""

    accuracy: float
    nll: float


def score(model: torch.nn.Module, split: Split, batch: int = 250) -> Score:
    """The model in evaluation mode on all inputs; its mode is left as it was."""
    before = model.training
    model.eval()
    right, nats = 0.0, 0.0
    with torch.no_grad():
        for inputs, targets in split.loader(batch):
            logits = model(inputs)
            right += float((logits.argmax(-1) == targets).float().sum())
            nats += float(everywhere(logits, targets)) * targets.numel()
    model.train(before)
    return Score(right / split.targets.numel(), nats / split.targets.numel())
