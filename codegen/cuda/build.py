"""Building a network for a GPU: its kernels compiled once each, their launches chained, memory planned, one fat binary."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from billhook.ir.errors import MeasureError
from billhook.ir.network import Kernel as Call
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .fatbin import ARCHITECTURES, compile_fatbin
from .kernel import Kernel, compile_kernel, cuda_source, evaluate
from .memory import plan_memory
from .program import CudaProgram, Launch


@dataclass(frozen=True)
class Built:
    """A program, its CUDA source, and per "symbol@architecture" what ptxas reports: registers and spilled bytes."""

    program: CudaProgram
    source: str
    usage: Mapping[str, Mapping[str, int]]


def build(
    network: Network, target: Target, architectures: Sequence[str] = ARCHITECTURES, ranks: Mapping[Workload, int] | None = None
) -> Built:
    """Compile a network whose tensors are all row-major (a partition for a target without channel blocks).

    ranks: for a workload, which of its statically ranked tiles to take (0 where it has no entry), as timing found it.
    MeasureError naming the kernel if one cannot be made.
    """
    program, source = generate(network, target, ranks)
    image, usage = compile_fatbin(source, architectures)
    return Built(replace(program, image=image, architectures=tuple(architectures)), source, usage)


def generate(network: Network, target: Target, ranks: Mapping[Workload, int] | None = None) -> tuple[CudaProgram, str]:
    """The program without machine code, and its CUDA source. Needs no nvcc."""
    kernels = _compile_all(network, target, ranks or {})
    return _chain(network, kernels), cuda_source(kernels.values(), target)


def _compile_all(network: Network, target: Target, ranks: Mapping[Workload, int]) -> dict[Workload, Kernel]:
    kernels: dict[Workload, Kernel] = {}
    for call in network.kernels:
        if call.workload not in kernels:
            try:
                kernels[call.workload] = compile_kernel(call.workload, target, f"k{len(kernels)}", ranks.get(call.workload, 0))
            except MeasureError as error:
                raise MeasureError(f"kernel '{call.name}': {error}") from error
    return kernels


def _chain(network: Network, kernels: Mapping[Workload, Kernel]) -> CudaProgram:
    """The launches of all kernels with the network's own value names, and where the values lie."""
    chain = _Chain(network)
    for call in network.kernels:
        chain.append(call, kernels[call.workload])
    outputs = tuple((chain.alias.get(n, n), chain.types[n]) for n in network.outputs)
    offsets, arena = plan_memory([launch.arguments for launch in chain.launches], chain.sizes, [name for name, _ in outputs])
    used = {a for launch in chain.launches for a in launch.arguments} | {name for name, _ in outputs}
    constants = {n: c for n, c in chain.constants.items() if n in used}
    return CudaProgram(network.inputs, outputs, tuple(chain.launches), offsets, arena, constants, b"", ())


class _Chain:
    """Launches under construction. Equal packed constants (of kernels that share a parameter) are stored once."""

    def __init__(self, network: Network) -> None:
        self.constants: dict[str, torch.Tensor] = {n: c.detach().contiguous() for n, c in network.constants.items()}
        self.types = dict(network.inputs)
        self.launches: list[Launch] = []
        self.sizes: dict[str, int] = {}
        self.alias: dict[str, str] = {}  # values that are views of others

    def append(self, call: Call, kernel: Kernel) -> None:
        self.types[call.output] = call.workload.output
        local = {f"x{i}": self.alias.get(name, name) for i, name in enumerate(call.inputs)}
        local |= self._fold(call, kernel)
        local |= {name: f"{call.output}/{name}" for name in kernel.sizes if name not in local}
        if kernel.output in kernel.sizes and not any(kernel.output == s.output for s in kernel.folded):
            local[kernel.output] = call.output
        else:  # a view of an input, or a constant
            self.alias[call.output] = local[kernel.output]
        self.sizes |= {local[n]: size for n, size in kernel.sizes.items() if local[n] not in self.constants}
        for launch in kernel.launches:
            arguments = tuple(local[a] for a in launch.arguments)
            self.launches.append(replace(launch, arguments=arguments, kernel=call.name))

    def _fold(self, call: Call, kernel: Kernel) -> dict[str, str]:
        """Evaluate what depends on parameters alone, and name the results after their content."""
        values: dict[str, np.ndarray] = dict(kernel.literals)
        values |= {f"x{i}": self.constants[n].numpy() for i, n in enumerate(call.inputs) if call.workload.roles[i] == "parameter"}
        results = evaluate(kernel.folded, values)
        named: dict[str, str] = {}
        for name in [*(n for n, _ in kernel.literals), *(s.output for s in kernel.folded)]:
            array = np.ascontiguousarray(results[name])
            content = hashlib.sha256(array.tobytes()).hexdigest()[:16]
            named[name] = f"folded.{content}"
            self.constants[named[name]] = torch.as_tensor(array)
        return named
