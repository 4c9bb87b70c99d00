"""A network as a sequence of kernels: what the cost model adds up, and what the code generator builds."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .workload import TensorType, Workload


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel call: a workload and the names of the values and constants that it reads, in the workload's order."""

    name: str  # the graph node that the anchor comes from
    workload: Workload
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Network:
    """Kernels in execution order. Values are named; `constants` are the folded parameters, in torch's own layout."""

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    constants: Mapping[str, torch.Tensor]

    def __str__(self) -> str:
        lines = [f"network({', '.join(f'{n}: {t}' for n, t in self.inputs)}) -> {', '.join(self.outputs)}"]
        lines += [f"  {k.output} = {k.name}[{', '.join(k.inputs)}] {k.workload}" for k in self.kernels]
        return "\n".join(lines)
