"""Saliency: what each index of an axis is worth. The vocabulary that all criteria share.

A criterion gives one score per index of every axis. The allocator maximises the *sum over axes* of the retained scores, so
the scores of different axes are compared with each other: each criterion's docstring says in which unit it counts.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from billhook.ir.axis import Axis, Member
from billhook.ir.errors import DataError
from billhook.ir.program import Program
from billhook.ir.progress import Progress

from .batches import Loader, Loss

Floats: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = Mapping[str, Floats]  # axis name -> one score per index, shape [axis size], never negative
Gradients: TypeAlias = Mapping[str, torch.Tensor]  # parameter name -> gradient of one batch's loss, shaped like the parameter


@dataclass(frozen=True, slots=True)
class Data:
    """The user's data for a criterion: batches (inputs, target) of a loader, the loss, how many batches (None: all)."""

    loader: Loader
    loss: Loss
    batches: int | None = None
    progress: Progress | None = None


class Criterion(Protocol):
    """Scores every axis of a program.

    module: holds the parameters under the program's names; gradients: one mapping per batch, consumed once, in order, and
    ignored by criteria that look at weights only. Nothing is modified. Raises DataError for scores that are not finite.
    """

    def __call__(self, program: Program, module: torch.nn.Module, gradients: Iterable[Gradients] = (), /) -> Scores: ...


class DataCriterion(Protocol):
    """A criterion that runs the network itself: it looks at activations, or at second derivatives."""

    def score(self, program: Program, module: torch.nn.Module, data: Data, /) -> Scores: ...


def parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The floating-point parameters of a module by name; a tied parameter is found under each of its names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}


def parameter_members(axis: Axis, known: Mapping[str, torch.Tensor]) -> list[Member]:
    """The members of an axis that are parameters; a parameter that is tied under several names counts once."""
    seen: set[tuple[int, int, object]] = set()
    found: list[Member] = []
    for member in axis.members:
        tensor = known.get(member.tensor)
        if tensor is None:
            continue
        key = (tensor.data_ptr(), member.dim, member.place)
        if key not in seen:
            seen.add(key)
            found.append(member)
    return found


def index_sums(member: Member, values: torch.Tensor) -> Floats:
    """Sum of `values` (shaped like the member's tensor) over everything that belongs to each index, shape [axis size]."""
    others = [dim for dim in range(values.dim()) if dim != member.dim]
    along = values.detach().double().sum(dim=others) if others else values.detach().double()
    sums: Floats = along.cpu().numpy()[member.place.positions()].sum(axis=1)
    return sums


def index_rows(member: Member, values: torch.Tensor) -> torch.Tensor:
    """Everything of `values` (shaped like the member's tensor) that belongs to each index, float64 [axis size, entries]."""
    along = values.detach().double().movedim(member.dim, 0)
    positions = torch.from_numpy(member.place.positions()).to(along.device)
    return along[positions].reshape(len(positions), -1)


def makers(members: Sequence[Member], norms: Collection[str] = ()) -> list[Member]:
    """The members that make the axis: the norms that scale it if any are named, else its producers, its scales or its readers."""
    affine = [m for m in members if m.tensor in norms]
    return affine or next((side for role in ("producer", "scale", "consumer") if (side := [m for m in members if m.role == role])), [])


def index_weights(member: Member, values: torch.Tensor) -> int:
    """How many entries of the member's tensor belong to one index."""
    return member.place.positions().shape[1] * (values.numel() // values.shape[member.dim])


def finite(axis: str, scores: Floats) -> Floats:
    """The scores themselves. Raises DataError, naming the axis and its first bad index."""
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise DataError(f"axis {axis}: the score of index {bad[0]} is {scores[bad[0]]}; its weights or gradients are not finite")
    return scores


def retained(scores: Floats) -> Floats:
    """V(k) for k = 0 .. size: the sum of the k best scores (METHODS.md 1), shape [size + 1]."""
    best_first = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    return np.concatenate([np.zeros(1), np.cumsum(best_first)])


def best_indices(scores: Floats, k: int) -> tuple[int, ...]:
    """Indices of the k best scores, ascending; of equal scores the lower index wins, so that what k keeps, k + 1 keeps."""
    if not 0 <= k <= len(scores):
        raise DataError(f"cannot keep {k} of {len(scores)} indices")
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return tuple(sorted(int(i) for i in order[:k]))
