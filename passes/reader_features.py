"""What layers see: their features over data, and the second moments of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from billhook.ir.program import Program

from .observe import See
from .readers import ALL_ROWS, Reader
from .saliency import Data
from .saliency_activation import run_through

ROWS = 1 << 13  # of features of one batch, where a sample of positions is enough


def show_features(
    program: Program, readers: Sequence[Reader], data: Data, see: Callable[[Reader, torch.Tensor], None], most: int = ALL_ROWS
) -> None:
    """Run the program's network over the data and show every reader its features [rows, features] of each batch, `most` rows at most.

    Raises DataError like `run_through`.
    """
    by_source: dict[str, list[Reader]] = {}
    for reader in readers:
        by_source.setdefault(reader.source, []).append(reader)

    def seen(source: str) -> See:
        def look(value: torch.Tensor) -> None:
            for reader in by_source[source]:
                see(reader, reader.features(value, most))

        return look

    run_through(program, data, {source: seen(source) for source in by_source})


@dataclass(frozen=True, slots=True, eq=False)
class SecondMoment:
    """Sum over rows of x x^T, uncentred, float64 [features, features]."""

    total: torch.Tensor
    rows: int

    @property
    def mean(self) -> torch.Tensor:
        """E[x x^T]."""
        return self.total / self.rows


def second_moments(program: Program, readers: Sequence[Reader], data: Data, most: int = ALL_ROWS) -> dict[str, SecondMoment]:
    """Of the features of each reader, by its node. Raises DataError like `run_through`."""
    found: dict[str, SecondMoment] = {}

    def add(reader: Reader, features: torch.Tensor) -> None:
        total, before = features.T @ features, found.get(reader.node)
        found[reader.node] = SecondMoment(
            total if before is None else before.total + total, len(features) + (0 if before is None else before.rows)
        )

    show_features(program, readers, data, add, most)
    return found
