"""Probes: what the loss really does when an axis shrinks, so that the scores of different axes can be compared.

Scores rank the indices of one axis well, but how much an axis matters against the others they only guess: sums over
coupled layers favour the residual stream. A probe cuts one axis to a size, by its scores, and measures the loss on
calibration batches; the allocator then maximises the sum of measured, not of guessed, worths.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch.utils import _pytree as pytree

from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.ir.tensors import tensors_in

from .batches import Loader, Loss, apply, scalar_loss, split
from .cut import cut_graph
from .recover_config import autocast
from .saliency import Floats, Scores, best_indices

SHARES = (0.25, 0.5, 0.75)  # of an axis, probed beside its smallest size and 0


def probed_worth(
    program: Program,
    scores: Scores,
    candidates: Mapping[str, Sequence[int]],
    base: Mapping[str, int],
    loader: Loader,
    loss_fn: Loss,
    batches: int = 2,
    progress: Progress | None = None,
) -> dict[str, Floats]:
    """Worth of every size of every axis that has a choice: V(k), k = 0 .. size, the loss that k more than none saves.

    base: sizes around which the network is probed, one axis at a time; other axes are whole. Cuts add up in a network that is
    cut already, so a base near the wanted latency says more than the dense network. Batch norms use the statistics of the
    batch, as after a recalibration. The loss is made monotone, keeping more never counts as worse, and interpolated by a
    monotone cubic (Fritsch and Carlson 1980): straight lines would let the solver choose probed sizes only. Raises DataError like
    `collect_gradients`.
    """
    data = [split(batch) for batch in islice(loader, batches)]
    free = {name: sizes for name, sizes in candidates.items() if len(sizes) > 1}
    kept = {name: best_indices(scores[name], size) for name, size in base.items()}
    plans = [(name, size) for name, sizes in free.items() for size in probe_sizes(sizes)]
    found: dict[str, dict[int, float]] = {name: {} for name in free}
    for done, (name, size) in enumerate(plans):
        if progress is not None:
            progress("probe axes", done, len(plans))
        plan = make_plan(program, {**kept, name: best_indices(scores[name], size)})
        found[name][size] = plan_loss(program, plan, data, loss_fn)
    if progress is not None:
        progress("probe axes", len(plans), len(plans))
    return {name: worth(candidates[name][-1], losses) for name, losses in found.items()}


def probe_sizes(candidates: Sequence[int]) -> tuple[int, ...]:
    """Sizes at which an axis is probed: its smallest ones, its largest, and candidates near `SHARES` of it."""
    positive = [s for s in candidates if s > 0]
    near = {min(positive, key=lambda s: abs(s - share * candidates[-1])) for share in SHARES}
    return tuple(sorted({candidates[0], positive[0], candidates[-1]} | near))


def worth(size: int, losses: Mapping[int, float]) -> Floats:
    """V(k) for k = 0 .. size from losses at some sizes: non-negative, non-decreasing, V at the smallest probed size is 0."""
    sizes = sorted(losses)
    increase = np.maximum.accumulate(np.array([losses[s] for s in reversed(sizes)]))[::-1]
    curve = PchipInterpolator(sizes, increase)(np.clip(np.arange(size + 1), sizes[0], size))
    return np.asarray(curve[0] - curve, dtype=np.float64)


def plan_loss(program: Program, plan: Plan, data: Sequence[tuple[object, object]], loss_fn: Loss) -> float:
    """Mean loss of the cut network, by batch statistics.

    Where the processor computes in bfloat16, so does the network: half the time, and worths that differ by a thousandth from those in
    float32, far less than those of other calibration batches do.
    """
    module = copy.deepcopy(cut_graph(program, plan))  # its statistics change, and untouched tensors are the dense network's own
    module.use_batch_statistics()
    device = next((t.device for batch in data for t in tensors_in(batch)), torch.device("cpu"))
    losses: list[float] = []
    with torch.no_grad():
        for place, (inputs, target) in enumerate(data):
            with autocast("auto", device):
                output = apply(module, inputs)
            losses.append(float(scalar_loss(loss_fn, pytree.tree_map_only(torch.Tensor, _single, output), target, place)))
    return float(np.mean(losses))


def _single(tensor: torch.Tensor) -> torch.Tensor:
    """float32 for the user's loss, whatever the network computed in."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
