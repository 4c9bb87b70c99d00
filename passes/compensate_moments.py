"""Joint moments of two views of the same rows, and the regression of one on the other."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray


def _empty() -> torch.Tensor:
    return torch.zeros(0, dtype=torch.float64)


@dataclass(slots=True)
class Joint:
    """Sums over rows of what is to be explained, x [n, f], and of what explains it, x' [n, g]: x, x', x x'^T and x' x'^T."""

    count: int = 0
    left: torch.Tensor = field(default_factory=_empty)
    right: torch.Tensor = field(default_factory=_empty)
    cross: torch.Tensor = field(default_factory=_empty)
    gram: torch.Tensor = field(default_factory=_empty)

    def add(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Take a batch of rows into account."""
        gram = right.T @ right
        parts = (left.sum(0), right.sum(0), gram if left is right else left.T @ right, gram)
        if not self.count:
            self.left, self.right, self.cross, self.gram = parts
        else:
            self.left, self.right = self.left + parts[0], self.right + parts[1]
            self.cross, self.gram = self.cross + parts[2], self.gram + parts[3]
        self.count += len(left)

    @property
    def left_mean(self) -> torch.Tensor:
        """Mean of x, [f]."""
        return self.left / max(self.count, 1)

    def among(self, kept: NDArray[np.int64]) -> "Joint":
        """The moments with only these of the features that explain."""
        return Joint(self.count, self.left, self.right[kept], self.cross[:, kept], self.gram[np.ix_(kept, kept)])

    def through(self, weight: torch.Tensor) -> "Joint":
        """The moments with W x in place of x; weight W [outputs, f]."""
        return Joint(self.count, weight @ self.left, self.right, weight @ self.cross, self.gram)

    def solve(self, start: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(W', b') that minimise the mean of ||x - W' x' - b'||^2 + ridge * v ||W' - start||^2, v = mean variance of x'.

        start [f, g]: where the data say nothing, W' stays there.
        """
        mean, other = self.left_mean, self.right / max(self.count, 1)
        covariance = self.gram / max(self.count, 1) - torch.outer(other, other)
        cross = self.cross / max(self.count, 1) - torch.outer(mean, other)
        strength = max(ridge * float(covariance.diagonal().mean()), 1e-12)
        system = covariance + strength * torch.eye(len(covariance), dtype=covariance.dtype)
        solved = torch.linalg.solve(system, (cross + strength * start).T).T
        return solved, mean - solved @ other
