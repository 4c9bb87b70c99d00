"""From a network to its launch sequence: kernels compiled once each, their launches chained, memory planned."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from billhook.ir.errors import MeasureError
from billhook.ir.memory import plan_memory
from billhook.ir.network import Kernel as Call
from billhook.ir.network import Network
from billhook.ir.workload import Workload

from .hardware import Gpu
from .kernel import Kernel, compile_kernel, evaluate
from .launch import Launch, LaunchSequence


def compile_all(network: Network, gpu: Gpu, ranks: Mapping[Workload, int]) -> dict[Workload, Kernel]:
    """Every distinct kernel; ranks: which of the statically ranked tiles a workload takes (0 where it has no entry).

    MeasureError naming the kernel if one cannot be made.
    """
    kernels: dict[Workload, Kernel] = {}
    for call in network.kernels:
        if call.workload not in kernels:
            try:
                kernels[call.workload] = compile_kernel(call.workload, gpu, f"k{len(kernels)}", ranks.get(call.workload, 0))
            except MeasureError as error:
                raise MeasureError(f"kernel '{call.name}': {error}") from error
    return kernels


def chain(network: Network, kernels: Mapping[Workload, Kernel]) -> LaunchSequence:
    """The launches of all kernels with the network's own value names, and where the values lie."""
    links = _Chain(network)
    for call in network.kernels:
        links.append(call, kernels[call.workload])
    outputs = tuple((links.alias.get(n, n), links.types[n]) for n in network.outputs)
    offsets, arena = plan_memory([launch.arguments for launch in links.launches], links.sizes, [name for name, _ in outputs])
    used = {a for launch in links.launches for a in launch.arguments} | {name for name, _ in outputs}
    constants = {n: c for n, c in links.constants.items() if n in used}
    return LaunchSequence(network.inputs, outputs, tuple(links.launches), offsets, arena, constants)


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
