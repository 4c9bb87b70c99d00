"""Activation attention: how much of the signal passes through an index."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from billhook.ir.dims import Dim, occurrences
from billhook.ir.errors import DataError, OptionError
from billhook.ir.program import Program

from .batches import apply, split
from .observe import See, any_batch, read_values, watched
from .saliency import Data, Floats, Scores, finite


@dataclass(frozen=True, slots=True)
class Activation:
    """Mean over the data of abs(activation)^p, averaged over the values in which the axis is read (AAP, Zhao et al. 2022).

    An activation counts where an operator sums over it: behind the nonlinearity, in front of the reader's weights. Averaged over
    samples and positions, whatever the sizes of the batches. Unit: that of the activations to the power p, so widths of different
    layers are comparable only as far as their scales are.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise OptionError(f"activation attention: the power must be greater than 0, not {self.power}")

    def score(self, program: Program, _module: torch.nn.Module, data: Data, /) -> Scores:
        """Scores by one pass. Raises DataError: no batch, a batch that does not fit, activations that are not finite."""
        values = {axis.name: read_values(program, axis.name) for axis in program.axes}
        wanted = {source: read.dim for found in values.values() for source, (read, _) in found.items()}
        means = {(source, dim): _Mean(dim, self.power) for source, dim in wanted.items()}
        run_through(program, data, {source: means[source, dim].see for source, dim in wanted.items()})
        scores: dict[str, Floats] = {}
        for axis in program.axes:
            seen = [(means[source, wanted[source]], dim) for source, (_, dim) in values[axis.name].items()]
            parts = [_indices(mean.value, dim, axis.name, axis.size) for mean, dim in seen]
            scores[axis.name] = finite(axis.name, np.mean(parts, axis=0) if parts else np.zeros(axis.size))
        return scores


def run_through(program: Program, data: Data, sees: Mapping[str, See]) -> int:
    """Run the program's network over the data and show the named values; returns the number of batches.

    Raises DataError: no batch, or a batch that does not fit or in which one of the values is not finite, naming both.
    """
    count = 0

    def checked(name: str, see: See) -> See:
        def look(value: torch.Tensor) -> None:
            if not bool(torch.isfinite(value).all()):
                raise DataError(f"batch {count - 1}: the activations {name} hold NaN or infinite values; check that batch")
            see(value)

        return look

    network = watched(any_batch(program), {name: checked(name, see) for name, see in sees.items()})
    with torch.no_grad():
        for count, batch in enumerate(islice(data.loader, data.batches), start=1):
            apply(network, split(batch)[0])
            if data.progress is not None:
                data.progress("activations", count, max(data.batches or 0, count))
    if not count:
        raise DataError("the data loader is empty; a criterion on activations needs at least one batch")
    return count


@dataclass(slots=True)
class _Mean:
    """Mean of abs(value)^power over everything but one dimension."""

    dim: int
    power: float
    count: int = 0
    total: Floats = field(default_factory=lambda: np.zeros(1))

    def see(self, value: torch.Tensor) -> None:
        others = [d for d in range(value.dim()) if d != self.dim]
        powers = value.double().abs().pow(self.power)
        self.total = self.total + (powers.sum(dim=others) if others else powers).cpu().numpy()
        self.count += value.numel() // value.shape[self.dim]

    @property
    def value(self) -> Floats:
        return self.total / max(self.count, 1)


def _indices(along: Floats, dim: Dim, axis: str, size: int) -> Floats:
    """Mean over the positions of each index of an axis in a dimension."""
    found = [along[o.positions()].mean(axis=1) for o in occurrences(dim) if o.axis == axis]
    return np.mean(found, axis=0) if found else np.zeros(size)
