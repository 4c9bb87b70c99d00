"""Which values of a network are bytes on a grid, and which kernels therefore multiply integers: int8 as a property of values.

A value between two kernels is put on a grid where a convolution or a linear map reads it as its data, or a pooling or a concatenation
passes it on to one, and where the target has kernels for whoever writes and reads it. Everything else (residual streams that only norms
read, attention, softmax) stays real: it would lose accuracy and gain nothing. Inputs, outputs and parameters keep their types.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from billhook.costmodel.origin import Extents
from billhook.costmodel.partition import Partition
from billhook.ir.grids import QUINT8, on_grid, with_grids
from billhook.ir.network import Kernel, Network
from billhook.ir.workload import TensorType, Workload

from .quantise import CONTRACTIONS, Quantisation, Range, quantise

Covered = Callable[[Workload], bool]

_PASSES_ON = ("aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default", "aten.mean.dim", "aten.cat.default")
_SELECTS = ("aten.max_pool2d.default", "billhook.layout")  # results are some of the operands: on their grid they are exact


@dataclass(frozen=True)
class OnGrids:
    """A partition with values on grids, and the quantisation that says which: with it a reference runs the real network."""

    partition: Partition
    quantisation: Quantisation


def put_on_grids(partition: Partition, ranges: Mapping[str, Range], covered: Covered, multiplies: Covered) -> OnGrids:
    """The partition with all values on grids that should be and can be. Pure.

    ranges: of every value (`quantise.observe`). covered: whether the target has a kernel for a workload; multiplies: whether that kernel
    multiplies integers, so that its weight is rounded too. DataError for a value without a range.
    """
    network = partition.network
    values = _choose(network, covered)
    typed = [_typed(kernel, values) for kernel in network.kernels]
    exact = frozenset(k.output for k in typed if k.workload.inputs[0].dtype == QUINT8 and multiplies(k.workload))
    quantisation = quantise(network, _shared(network, ranges, values), values=values, kernels=exact)
    constants, dims = dict(network.constants), dict(partition.dims)
    kernels = tuple(_told(kernel, quantisation, constants, dims) for kernel in typed)
    return OnGrids(replace(partition, network=replace(network, kernels=kernels, constants=constants), dims=dims), quantisation)


def _choose(network: Network, covered: Covered) -> frozenset[str]:
    """The largest set of values for which every kernel is covered and every value has a reader that wants it."""
    fixed = {name for name, _ in network.inputs} | set(network.outputs) | set(network.constants)
    values = {k.output for k in network.kernels if k.workload.output.dtype == "float32"} - fixed
    known: dict[Workload, bool] = {}

    def fits(workload: Workload) -> bool:
        if workload not in known:
            known[workload] = covered(workload)
        return known[workload]

    while True:
        wanted = {n for k in network.kernels for n in _wants(k, values)}
        kernels = [k for k in network.kernels if not (values & wanted).isdisjoint((*k.inputs, k.output))]
        failing = {n for k in kernels if not fits(_typed(k, values & wanted).workload) for n in (*k.inputs, k.output)}
        if values <= wanted - failing:
            return frozenset(values)
        values &= wanted - failing


def _wants(kernel: Kernel, values: set[str]) -> tuple[str, ...]:
    """The values that a kernel would rather read on a grid."""
    op = kernel.workload.anchor.op
    if op in CONTRACTIONS:
        return kernel.inputs[:1]
    return kernel.inputs if op in _PASSES_ON and kernel.output in values else ()


def _typed(kernel: Kernel, values: frozenset[str] | set[str]) -> Kernel:
    """A kernel with these values on grids, its parameter for them still without a name."""
    workload = kernel.workload
    inputs = tuple(_bytes(t, n in values) for t, n in zip(workload.inputs, kernel.inputs, strict=True))
    output = _bytes(workload.output, kernel.output in values)
    return replace(kernel, workload=with_grids(replace(workload, inputs=inputs, output=output)))


def _bytes(given: TensorType, narrow: bool) -> TensorType:
    return replace(given, dtype=QUINT8) if narrow else given


def _shared(network: Network, ranges: Mapping[str, Range], values: frozenset[str]) -> dict[str, Range]:
    """The ranges, where kernels that only select among their operands leave the range as it is."""
    found = dict(ranges)
    for kernel in network.kernels:
        source = kernel.inputs[0]
        if [c.op for c in kernel.workload.calls] in [[op] for op in _SELECTS] and {source, kernel.output} <= values:
            found[kernel.output] = found[source]
    return found


def _told(kernel: Kernel, quantisation: Quantisation, constants: dict[str, torch.Tensor], dims: dict[str, Extents]) -> Kernel:
    """A kernel with its grids as a constant, which is added to the network's."""
    names = (*kernel.inputs, kernel.output)  # numbered as the tensors of the workload without its grids
    if not on_grid(kernel.workload):
        return kernel
    grids = [quantisation.grids[n] for n in names if n in quantisation.grids]
    name = f"{kernel.output}.grids"
    constants[name] = torch.tensor([[g.step, g.zero] for g in grids], dtype=torch.float32)
    dims[name] = (len(grids), 2)
    return replace(kernel, inputs=(*kernel.inputs, name))
