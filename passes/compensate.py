"""Compensation: what can be repaired in a cut network from calibration activations, without training.

    reform(program, pruned, data)       kept weights corrected for the removed ones, from statistics of the dense network
    reconstruct(program, pruned, data)  readers solved anew, layer by layer, on what the cut network really feeds them
    absorb(program, pruned, data)       the mean of what was removed goes into the readers' biases

Each changes the readers of cut axes (linear maps, convolutions) in place and nothing else, and returns how many. Recalibrate batch norms
before a reconstruction, and after all three (`recalibrate_batchnorm`).
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from billhook.ir.dims import Dim, kept_mask
from billhook.ir.errors import DataError, OptionError
from billhook.ir.program import Program, state_of

from .batches import split
from .compensate_moments import Joint
from .cut import touches
from .lockstep import Lockstep
from .observe import any_batch
from .prune import Pruned
from .reader_features import ROWS, show_features
from .readers import Reader, find_readers
from .saliency import Data

RIDGE = 1e-3  # of the mean variance of a feature: how far a correction may lean on noise

Positions = NDArray[np.int64]


def reform(program: Program, pruned: Pruned, data: Data, ridge: float = RIDGE) -> int:
    """W_k + W_r C_rk (C_kk + ridge)^-1: the removed inputs r, predicted from the kept ones k (the closed form of SearchLLM, 2024).

    C is the covariance of the dense network's features, so one pass serves all layers; biases take the difference of the means.
    Raises DataError without data, OptionError for a negative ridge.
    """
    layers = _layers(program, pruned)
    joints = _dense(program, [r for r, _ in layers], data)
    for (reader, kept), joint in zip(layers, joints, strict=True):
        weight, outputs = _matrix(reader, program), _outputs(reader, program, pruned)
        _store(reader, program, pruned, *joint.among(kept).through(weight[outputs]).solve(weight[outputs][:, kept], _checked(ridge)))
    return len(layers)


def absorb(program: Program, pruned: Pruned, data: Data) -> int:
    """B + W_r E[x_r]: the mean contribution of the removed inputs r goes into the bias.

    Readers without a bias are left alone: a batch norm behind them absorbs the same when it is recalibrated. Raises DataError.
    """
    layers = [(r, kept) for r, kept in _layers(program, pruned) if r.bias is not None]
    joints = _dense(program, [r for r, _ in layers], data)
    for (reader, kept), joint in zip(layers, joints, strict=True):
        weight = _matrix(reader, program)[_outputs(reader, program, pruned)]
        _store(reader, program, pruned, weight[:, kept], weight @ joint.left_mean - weight[:, kept] @ joint.left_mean[kept])
    return len(layers)


def reconstruct(program: Program, pruned: Pruned, data: Data, ridge: float = RIDGE, rows: int = ROWS) -> int:
    """Min ||W x - W' x'||^2 + ridge ||W' - W_k||^2 for one reader after the other (CP, He, Zhang and Sun 2017).

    x is what the dense network feeds the layer, x' what the cut one does with the layers before it repaired, so errors are not
    handed on. Both networks run once, in step; of a batch a layer looks at `rows` rows of features at most, spread over its samples. Of
    the dense network only W x is looked at, which the layer itself computes: its features are wider than what it makes of them. Raises
    DataError without data, OptionError for a negative ridge.
    """
    layers = _layers(program, pruned)
    inputs = [split(batch)[0] for batch in islice(data.loader, data.batches)]
    if not inputs:
        raise DataError("the data loader is empty; reconstruction needs at least one batch")
    dense = Lockstep(any_batch(program), inputs, {reader.node for reader, _ in layers})
    small = Lockstep(pruned.program.graph, inputs, {reader.source for reader, _ in layers})
    for done, (reader, kept) in enumerate(layers):
        if data.progress is not None:
            data.progress("reconstruct", done, len(layers))
        outputs, joint = _outputs(reader, program, pruned), Joint()
        bias = 0 if reader.bias is None else state_of(program.graph, reader.bias).detach().double()[outputs]
        for value, seen in zip(dense.until(reader.node), small.until(reader.source), strict=True):
            features = reader.features(seen, rows)
            joint.add(reader.results(value, rows)[:, outputs] - bias, features)
        _store(reader, program, pruned, *joint.solve(_matrix(reader, program)[outputs][:, kept], _checked(ridge)))
    return len(layers)


def _layers(program: Program, pruned: Pruned) -> list[tuple[Reader, Positions]]:
    """The readers whose inputs were cut and which still exist, and the features that they keep."""
    masks = pruned.plan.masks(program)
    left = {node.name for node in pruned.program.graph.graph.nodes}
    found: list[tuple[Reader, Positions]] = []
    for reader in find_readers(program):
        if reader.node in left and touches(reader.inputs, masks):
            kept = _kept(reader.inputs, program, pruned)
            found.append((reader, reader.columns(kept).reshape(-1)))
    return [(r, kept) for r, kept in found if len(kept)]


def _dense(program: Program, readers: Sequence[Reader], data: Data) -> list[Joint]:
    """Moments of what the dense network feeds the readers."""
    joints = {reader: Joint() for reader in readers}
    show_features(program, readers, data, lambda reader, features: joints[reader].add(features, features))
    return [joints[reader] for reader in readers]


def _kept(dim: Dim, program: Program, pruned: Pruned) -> Positions:
    return np.flatnonzero(kept_mask(dim, pruned.plan.masks(program)))


def _matrix(reader: Reader, program: Program) -> torch.Tensor:
    """The dense layer's weight as [outputs, features], float64."""
    return state_of(program.graph, reader.weight).detach().double().flatten(1)


def _outputs(reader: Reader, program: Program, pruned: Pruned) -> Positions:
    """The layer's outputs that are left."""
    return _kept(reader.outputs, program, pruned)


def _store(reader: Reader, program: Program, pruned: Pruned, weight: torch.Tensor, shift: torch.Tensor) -> None:
    """Put the weight [outputs that are left, features] into the cut network, and the dense bias moved by `shift`."""
    target = state_of(pruned.program.graph, reader.weight)
    with torch.no_grad():
        target.copy_(weight.reshape(target.shape).to(target))
        if reader.bias is not None:
            bias = state_of(pruned.program.graph, reader.bias)
            dense = state_of(program.graph, reader.bias).detach()[_outputs(reader, program, pruned)]
            bias.copy_((dense.double() + shift).to(bias))


def _checked(ridge: float) -> float:
    if not ridge >= 0:
        raise OptionError(f"compensation: the ridge must be 0 or more, not {ridge}")
    return ridge
