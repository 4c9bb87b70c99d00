"""Memory plan: where every value that a network makes lies in one arena. Values that never live together share space."""

from collections.abc import Collection, Mapping, Sequence

import torch

from .network import Network
from .workload import TensorType

ALIGNMENT = 256  # bytes; what cudaMalloc guarantees, so kernels may use their widest loads on every value


def plan_memory(uses: Sequence[Collection[str]], sizes: Mapping[str, int], kept: Collection[str]) -> tuple[dict[str, int], int]:
    """Offsets (bytes) of the values in `sizes` (bytes), and the arena's size.

    uses: the values that each step reads or writes; a value lives from its first to its last use, one in `kept` until
    the end. Greedy by size: each value takes the lowest gap among those already placed that live at the same time.
    """
    first, last = lives(uses, sizes, kept)
    placed: list[str] = []
    offsets: dict[str, int] = {}
    for name in sorted(first, key=lambda n: (-sizes[n], first[n])):
        alive = [other for other in placed if first[other] <= last[name] and first[name] <= last[other]]
        position = 0
        for other in sorted(alive, key=offsets.__getitem__):
            if offsets[other] - position >= sizes[name]:
                break
            position = max(position, _aligned(offsets[other] + sizes[other]))
        offsets[name] = position
        placed.append(name)
    return offsets, max((_aligned(offsets[n] + sizes[n]) for n in placed), default=0)


def lives(uses: Sequence[Collection[str]], sizes: Collection[str], kept: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last step in which each value of `sizes` is alive; one in `kept` is until the end."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, names in enumerate(uses):
        for name in names:
            if name in sizes:
                first.setdefault(name, step)
                last[name] = step
    last.update({name: len(uses) for name in kept if name in first})
    return first, last


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def arena_bytes(network: Network) -> int:
    """Bytes of the arena for all values that the network's kernels make, outputs included; inputs are the caller's.

    What kernels need for themselves besides, such as results between the stages of one, is not in it.
    """
    sizes = {k.output: tensor_bytes(k.workload.output) for k in network.kernels}
    return plan_memory(value_uses(network), sizes, network.outputs)[1]


def value_uses(network: Network) -> tuple[tuple[str, ...], ...]:
    """The values, inputs and parameters that each kernel reads or makes."""
    return tuple((*k.inputs, k.output) for k in network.kernels)


def tensor_bytes(given: TensorType) -> int:
    """Bytes of a tensor as it is stored, padding lanes included."""
    return getattr(torch, given.dtype).itemsize * given.elements
