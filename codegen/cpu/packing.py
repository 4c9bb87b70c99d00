"""Packing of parameters and activations between torch's row-major order and the kernels' flat buffers."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from billhook.ir.workload import TensorType, Workload

from .epilogue import access

_LANES = 16  # per-channel vectors are padded to the widest vector of any target, so every block may read them whole


def to_blocked(array: np.ndarray, block: int, fill: float = 0.0) -> np.ndarray:
    """[N, C, H, W] as flat [N, ceil(C/block), H, W, block], padding lanes `fill`. Row-major if block is 0."""
    if not block:
        return np.ascontiguousarray(array).reshape(-1)
    n, c, h, w = array.shape
    blocks = -(-c // block)
    full = np.full((n, blocks * block, h, w), fill, np.float32)
    full[:, :c] = array
    return np.ascontiguousarray(full.reshape(n, blocks, block, h, w).transpose(0, 1, 3, 4, 2)).reshape(-1)


def from_blocked(flat: np.ndarray, given: TensorType) -> np.ndarray:
    """Inverse of `to_blocked`: the logical tensor."""
    if not given.block:
        return flat.reshape(given.shape)
    n, c, h, w = given.shape
    blocks = -(-c // given.block)
    return flat.reshape(n, blocks, h, w, given.block).transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c]


def padded(workload: Workload, index: int) -> int:
    """Elements of the packed form of a parameter that is not the anchor's weight."""
    given = workload.inputs[index]
    if access(workload, index) == "element":
        return given.elements
    count = max(given.elements, 1)
    return 1 if count == 1 and access(workload, index) == "scalar" else -(-count // _LANES) * _LANES


def input_sizes(workload: Workload, own: Mapping[int, int] = MappingProxyType({})) -> list[int]:
    """Elements of the flat buffer of every input. own: of those that a template packs in its own way, by their number."""

    def elements(index: int) -> int:
        if index in own:
            return own[index]
        return padded(workload, index) if workload.roles[index] == "parameter" else workload.inputs[index].elements

    return [elements(i) for i in range(len(workload.inputs))]


def pack_parameter(workload: Workload, index: int, array: np.ndarray) -> np.ndarray:
    """A parameter that is not the anchor's weight: a vector padded with zeros, or a map in the output's layout."""
    given = workload.inputs[index]
    if access(workload, index) == "element":
        return to_blocked(array, given.block)
    return pack_vector(array, padded(workload, index))


def pack_vector(array: np.ndarray, elements: int) -> np.ndarray:
    """A vector padded with zeros to `elements`."""
    full = np.zeros(elements, np.float32)
    full[: array.size] = array.reshape(-1)
    return full
