"""The tasks: pictures made from scikit-learn's digits, small enough for one core and hard enough not to saturate."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from billhook.demo.data import two_digits

CLASSES = 100
SHAPE = (1, 16, 32)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Pictures [N, 1, 16, 32] and the two-digit numbers that they show, [N]."""

    pictures: torch.Tensor
    numbers: torch.Tensor

    def loader(self, batch: int, shuffle: bool = False) -> "DataLoader[tuple[torch.Tensor, ...]]":
        """Batches (pictures, numbers); the order of a shuffled loader follows torch's global seed."""
        return DataLoader(TensorDataset(self.pictures, self.numbers), batch, shuffle=shuffle, drop_last=shuffle)

    def first(self, count: int) -> "Split":
        """The first `count` of them."""
        return Split(self.pictures[:count], self.numbers[:count])


def load(train: int, test: int) -> tuple[Split, Split]:
    """(training, test) pictures: the demo's at half the resolution. Test pictures show other scans than training pictures."""
    parts = two_digits(train, test)
    return Split(F.avg_pool2d(parts[0].pictures, 2), parts[0].numbers), Split(F.avg_pool2d(parts[1].pictures, 2), parts[1].numbers)


@dataclass(frozen=True, slots=True)
class Score:
    """Share of right answers, and mean negative log-likelihood in nats."""

    accuracy: float
    nll: float


def score(model: torch.nn.Module, split: Split, batch: int = 250) -> Score:
    """The model in evaluation mode on all pictures; its mode is left as it was."""
    before = model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(x) for x, _ in split.loader(batch)])
    model.train(before)
    right = (logits.argmax(1) == split.numbers).float().mean()
    return Score(float(right), float(F.cross_entropy(logits, split.numbers)))
