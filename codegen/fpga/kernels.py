"""The accelerator's layers of kernels that have no numbers yet: what pricing and the pruner need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from billhook.ir.network import Network
from billhook.ir.workload import Workload

from .fuse import Fused, fused, layer_shape, meta_values, source_of
from .pricing import Pricer
from .shape import LayerShape


@dataclass(frozen=True, slots=True)
class KernelCost:
    """Cycles of one kernel of a network as a function of its workload at other widths.

    borders: of the maps that the kernel reads, in the workload's order, and of the one that it makes. They do not change with widths.
    """

    borders: tuple[int, ...]
    output: int
    pricer: Pricer

    def cycles(self, workload: Workload) -> int:
        """Modelled cycles. Raises CaptureError for what the target does not have, OptionError for what does not fit."""
        given = self.borders if len(self.borders) == len(workload.inputs) else (0,) * len(workload.inputs)
        return sum(self.pricer.price(shape).cycles for shape in kernel_layers(workload, given, self.output))


def kernel_costs(network: Network, pricer: Pricer) -> tuple[KernelCost, ...]:
    """The costs of a network's kernels, in its order."""
    borders = _borders(network)
    return tuple(
        KernelCost(tuple(borders.get(n, 0) for n in kernel.inputs), borders.get(kernel.output, 0), pricer) for kernel in network.kernels
    )


def network_layers(network: Network) -> tuple[LayerShape, ...]:
    """All layers of a network."""
    borders = _borders(network)
    return tuple(
        shape
        for kernel in network.kernels
        for shape in kernel_layers(kernel.workload, [borders.get(n, 0) for n in kernel.inputs], borders.get(kernel.output, 0))
    )


def kernel_layers(workload: Workload, borders: Sequence[int], output: int) -> tuple[LayerShape, ...]:
    """The layers of a kernel whose inputs have these borders, and whose result has the border `output`."""
    shapes = [tuple(v.shape) for v in meta_values(workload)]
    found: list[LayerShape] = []
    for operation in fused(workload):
        if operation.kind != "layer":
            continue
        shape = layer_shape(workload, operation, shapes)
        source = _source(workload, operation)
        border = max(borders[source] if source < len(borders) else 0, *shape.padding)
        made = output if operation.last == len(workload.calls) - 1 else 0
        residual = shape.residual
        if operation.residual is not None and operation.residual.index < len(borders):
            residual = borders[operation.residual.index]
        found.append(
            replace(shape, source=replace(shape.source, border=border), output=replace(shape.output, border=made), residual=residual)
        )
    return tuple(found)


def _source(workload: Workload, operation: Fused) -> int:
    return source_of(workload, workload.calls[operation.first]).index


def _borders(network: Network) -> Mapping[str, int]:
    """The border of each value that kernels hand on: what the layers that read it pad."""
    found: dict[str, int] = {}
    for kernel in network.kernels:
        shapes = [tuple(v.shape) for v in meta_values(kernel.workload)]
        for operation in fused(kernel.workload):
            if operation.kind == "layer" and (source := _source(kernel.workload, operation)) < len(kernel.inputs):
                name = kernel.inputs[source]
                found[name] = max(found.get(name, 0), *layer_shape(kernel.workload, operation, shapes).padding)
    return found
