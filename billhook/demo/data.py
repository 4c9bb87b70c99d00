"""The demo's task: read a two-digit number from a small, noisy, partly covered picture.

The digits are scikit-learn's `load_digits` (1,797 scans of 8x8 pixels, Alpaydin and Kaynak 1998), which ship with the
package. A picture shows two of them side by side, each turned, scaled, shifted, faded, with a grey patch over it, and
noise over all. The scans behind the test pictures are never seen in training.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from billhook.ir.errors import ToolchainError

HEIGHT, CELL = 32, 32  # a picture is HEIGHT x 2 * CELL
TRAIN_SCANS = 1100  # of 1,797; the rest is for the test pictures

Sample: TypeAlias = tuple[torch.Tensor, torch.Tensor | tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Every digit draws its distortion evenly from these ranges.

    noise: standard deviation of the noise, in units of full ink. fade: most ink that is lost, as a share. patch: side of
    the grey square that covers part of the digit, in pixels. shift: pixels, either way. turn: degrees, either way.
    zoom: smallest and largest scale.
    """

    noise: float = 0.15
    fade: float = 0.3
    patch: int = 6
    shift: float = 2.0
    turn: float = 8.0
    zoom: tuple[float, float] = (0.85, 1.05)


@dataclass(frozen=True, eq=False)
class Pictures:
    """pictures: float32 [N, 1, 32, 64], about zero mean and unit variance; numbers: int64 [N], 0 to 99."""

    pictures: torch.Tensor
    numbers: torch.Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> "Pictures":
        """The first `count` of them (they are in no order)."""
        return Pictures(self.pictures[:count], self.numbers[:count])

    def loader(self, batch: int, shuffle: bool = False, teacher: torch.Tensor | None = None) -> DataLoader[Sample]:
        """Batches (pictures, numbers); with the recorded logits of a teacher, [N, 100], (pictures, (numbers, logits)).

        The order of a shuffled loader follows torch's global seed; its last batch is dropped if it is not full.
        """
        return DataLoader(_Samples(self, teacher), batch, shuffle=shuffle, drop_last=shuffle)


class _Samples(Dataset[Sample]):
    def __init__(self, data: Pictures, teacher: torch.Tensor | None) -> None:
        self.data, self.teacher = data, teacher

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        number = self.data.numbers[index]
        return self.data.pictures[index], number if self.teacher is None else (number, self.teacher[index])


@dataclass(frozen=True, slots=True)
class Score:
    """accuracy: share of right answers; nll: mean negative log-likelihood of the right answer, in nats; right: per picture."""

    accuracy: float
    nll: float
    right: NDArray[np.bool_]


def two_digits(train: int = 6000, test: int = 2000, seed: int = 0, difficulty: Difficulty | None = None) -> tuple[Pictures, Pictures]:
    """(training, test) pictures. Equal arguments give equal pictures.

    Raises ToolchainError: scikit-learn is not installed.
    """
    scans, labels = _scans()
    order = torch.randperm(len(scans), generator=torch.Generator().manual_seed(seed))
    level = difficulty or Difficulty()

    def make(part: torch.Tensor, count: int, stream: int) -> Pictures:
        return _pictures(scans[part], labels[part], count, level, torch.Generator().manual_seed(3 * seed + stream))

    return make(order[:TRAIN_SCANS], train, 1), make(order[TRAIN_SCANS:], test, 2)


def score(model: nn.Module, data: Pictures, batch: int = 50) -> Score:
    """Accuracy and likelihood of a copy of the model in evaluation mode."""
    frozen: Any = copy.deepcopy(model).eval()
    frozen.to(memory_format=torch.channels_last)  # a fifth faster
    with torch.no_grad():
        logits = torch.cat([frozen(pictures) for pictures, _ in _batches(data, batch)])
    right = (logits.argmax(1) == data.numbers).numpy()
    return Score(float(right.mean()), float(F.cross_entropy(logits, data.numbers)), right)


def _batches(data: Pictures, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, len(data), batch):
        yield data.pictures[start : start + batch], data.numbers[start : start + batch]


def _scans() -> tuple[torch.Tensor, torch.Tensor]:
    """All scans, ink in 0..1, [1797, 8, 8], and what they show, [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as missing:
        raise ToolchainError(
            "the demo's data come with scikit-learn, which is not installed; run pip install 'billhook[demo]'"
        ) from missing
    ink, labels = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", load_digits(return_X_y=True))
    return torch.as_tensor(ink.reshape(-1, 8, 8), dtype=torch.float32) / 16, torch.as_tensor(labels, dtype=torch.int64)


def _pictures(scans: torch.Tensor, labels: torch.Tensor, count: int, level: Difficulty, generator: torch.Generator) -> Pictures:
    drawn = torch.randint(len(scans), (count, 2), generator=generator)
    cells = _cells(scans[drawn.reshape(-1)], level, generator)
    joined = cells.reshape(count, 2, HEIGHT, CELL).transpose(1, 2).reshape(count, 1, HEIGHT, 2 * CELL)
    noisy = joined + level.noise * torch.randn(joined.shape, generator=generator)
    return Pictures((noisy - 0.16) / 0.29, 10 * labels[drawn[:, 0]] + labels[drawn[:, 1]])


def _cells(scans: torch.Tensor, level: Difficulty, generator: torch.Generator) -> torch.Tensor:
    """Distorted digits, [N, 8, 8] -> [N, 32, 32]."""
    count = len(scans)

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    angle, zoom = draw(-level.turn, level.turn) * (math.pi / 180), draw(*level.zoom)
    shift = draw(-level.shift, level.shift, 2) / (CELL / 2)
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
    grid = 1.25 * F.affine_grid(torch.stack(rows, 1), [count, 1, HEIGHT, CELL], align_corners=False)  # 1.25: a margin
    ink = F.grid_sample(scans[:, None], grid, align_corners=False)[:, 0] * (1 - draw(0, level.fade, 1, 1))
    row, column = draw(4, HEIGHT - 4, 1, 1), draw(4, CELL - 4, 1, 1)
    near_row = (torch.arange(HEIGHT)[None, :, None] - row).abs() < level.patch / 2
    near_column = (torch.arange(CELL)[None, None, :] - column).abs() < level.patch / 2
    return torch.where(near_row & near_column, draw(0, 1, 1, 1), ink)
