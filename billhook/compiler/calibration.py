"""Calibration batches: what a network's values range over, from the user's data or else from the example inputs."""

from collections.abc import Mapping
from typing import Any

import torch

from billhook.ir.errors import DataError
from billhook.ir.tensors import tensors_in
from billhook.passes.batches import Loader, split

SAMPLES = 32  # inferences that ranges are taken from

Batches = tuple[tuple[torch.Tensor, ...], ...]


def calibration_batches(data: Loader | None, example: tuple[tuple[Any, ...], Mapping[str, Any]]) -> Batches:
    """At most `SAMPLES` inputs of the example's batch size, cut from batches of the data; the example itself without data.

    DataError where the data's inputs do not have the example's shapes, beyond the batch.
    """
    inputs = tuple(t.detach() for t in tensors_in(example))
    if data is None:
        return (inputs,)
    found: list[tuple[torch.Tensor, ...]] = []
    for batch in data:
        found += _pieces(tuple(t.detach() for t in tensors_in(split(batch)[0])), inputs)
        if len(found) >= SAMPLES:
            break
    if not found:
        raise DataError(f"no batch of the data has the {len(inputs[0])} samples that the example has; calibration needs one at least")
    return tuple(found[:SAMPLES])


def _pieces(given: tuple[torch.Tensor, ...], example: tuple[torch.Tensor, ...]) -> list[tuple[torch.Tensor, ...]]:
    """A batch in pieces of the example's batch size; what is left over is not used."""
    shapes = [tuple(t.shape[1:]) for t in given]
    if shapes != [tuple(t.shape[1:]) for t in example]:
        raise DataError(
            f"calibration: the data's inputs have shapes {shapes} per sample, the example {[tuple(t.shape[1:]) for t in example]}"
        )
    size = len(example[0])
    whole = min(len(t) for t in given) // size
    return [tuple(t[i * size : (i + 1) * size] for t in given) for i in range(whole)]
