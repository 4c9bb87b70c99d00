"""Which values of a network are bytes on a grid, and which kernels therefore multiply integers: int8 as a property of values.

A value between two kernels is put on a grid where a convolution or a linear map reads it as its data or adds it to a result on a grid, or
where a pooling or a concatenation passes it on to one, and where the target has kernels for whoever writes and reads it. Everything else
(residual streams that only norms read, attention, softmax) stays real: it would lose accuracy and gain nothing. Outputs and parameters keep
their types; an input is put on its grid by a kernel of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from billhook.costmodel.origin import CallOrigin
from billhook.costmodel.partition import Partition
from billhook.costmodel.partition_emit import LAYOUT
from billhook.ir.grids import QUINT8, on_grid, with_grids, without_grids
from billhook.ir.network import Kernel, Network
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, TensorType, Workload

from .quantise import CONTRACTIONS, Quantisation, Range, quantise

Covered = Callable[[Workload], bool]
Types = Mapping[str, TensorType]

_PASSES_ON = ("aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default", "aten.mean.dim", "aten.cat.default")
_SELECTS = ("aten.max_pool2d.default", LAYOUT)  # results are some of the operands: on their grid they are exact


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
    types = _types(network, partition.target)
    values = _choose(network, types, covered, multiplies)
    chosen = {name: types[name] for name in types if name in values}
    typed = [_typed(kernel, chosen) for kernel in network.kernels]
    exact = frozenset(k.output for k in typed if k.workload.inputs[0].dtype == QUINT8 and multiplies(k.workload))
    quantisation = quantise(network, _shared(network, ranges, values), values=values, kernels=exact)
    return OnGrids(_rewritten(partition, typed, chosen, quantisation), quantisation)


def _types(network: Network, target: Target) -> dict[str, TensorType]:
    """What every value that may be on a grid would be; images become channel-blocked, as kernels read bytes."""
    fixed = {*network.outputs, *network.constants}
    made = {k.output: replace(k.workload.output, dtype=QUINT8) for k in network.kernels if k.workload.output.dtype == "float32"}
    given = {name: _entered(given, target) for name, given in network.inputs if given.dtype == "float32" and len(given.shape) > 1}
    return {name: found for name, found in {**given, **made}.items() if name not in fixed}


def _entered(given: TensorType, target: Target) -> TensorType:
    blocked = len(given.shape) == 4 and target.blocked
    return replace(given, dtype=QUINT8, block=target.channel_block(given.shape[1]) if blocked else 0)


def _choose(network: Network, types: Types, covered: Covered, multiplies: Covered) -> frozenset[str]:
    """The largest set of values for which every kernel is covered and every value has a reader that wants it.

    An input of the network only where all that read it multiply integers: its conversion is a kernel more.
    """
    given = dict(network.inputs)
    values = {n for n in types if n not in given or covered(_entry(n, given[n], types[n]).workload)}
    known: dict[tuple[Workload, bool], bool] = {}

    def fits(kernel: Kernel, here: Types) -> bool:
        workload, exact = _typed(kernel, here).workload, not given.keys().isdisjoint(here.keys() & set(kernel.inputs))
        if (workload, exact) not in known:
            known[workload, exact] = covered(workload) and (not exact or multiplies(workload))
        return known[workload, exact]

    while True:
        kept = values & {n for k in network.kernels for n in _wants(k, values)}
        here = {n: types[n] for n in kept}
        touched = [k for k in network.kernels if not kept.isdisjoint((*k.inputs, k.output))]
        kept -= {n for k in touched if not fits(k, here) for n in (*k.inputs, k.output)}
        if kept == values:
            return frozenset(values)
        values = kept


def _wants(kernel: Kernel, values: set[str]) -> tuple[str, ...]:
    """The values that a kernel would rather read on a grid."""
    op = kernel.workload.anchor.op
    if kernel.output in values and op in (*CONTRACTIONS, *_PASSES_ON):
        return kernel.inputs  # what is added to a result on a grid may as well come from one
    return kernel.inputs[:1] if op in CONTRACTIONS else ()


def _typed(kernel: Kernel, chosen: Types) -> Kernel:
    """A kernel with these values on grids, its parameter for them still without a name."""
    workload = kernel.workload
    inputs = tuple(chosen.get(n, t) for t, n in zip(workload.inputs, kernel.inputs, strict=True))
    output = chosen.get(kernel.output, workload.output)
    return replace(kernel, workload=with_grids(replace(workload, inputs=inputs, output=output)))


def _entry(name: str, real: TensorType, stored: TensorType) -> Kernel:
    """The kernel that puts an input of the network on its grid."""
    workload = Workload((real,), ("activation",), (Call(LAYOUT, (Ref(0),)),), stored)
    return Kernel(f"{name}.bytes", with_grids(workload), (name,), f"{name}.bytes")


def _shared(network: Network, ranges: Mapping[str, Range], values: frozenset[str]) -> dict[str, Range]:
    """The ranges, where kernels that only select among their operands leave the range as it is."""
    found = dict(ranges)
    for kernel in network.kernels:
        source = kernel.inputs[0]
        if [c.op for c in kernel.workload.calls] in [[op] for op in _SELECTS] and {source, kernel.output} <= values:
            found[kernel.output] = found[source]
    return found


def _rewritten(partition: Partition, typed: list[Kernel], chosen: Types, quantisation: Quantisation) -> Partition:
    """The partition with these kernels, those that put inputs on their grids before them, and the grids as constants."""
    network = partition.network
    entries = [_entry(name, given, chosen[name]) for name, given in network.inputs if name in chosen]
    stored = {k.inputs[0]: k.output for k in entries}
    grids = {**quantisation.grids, **{stored[n]: quantisation.grids[n] for n in stored}}
    constants, dims = dict(network.constants), dict(partition.dims)
    dims |= {stored[n]: dims[n] for n in stored}
    kernels: list[Kernel] = list(entries)
    kernels += [replace(k, inputs=tuple(stored.get(n, n) for n in k.inputs)) for k in typed]
    for i, kernel in enumerate(kernels):
        names = (*kernel.inputs, kernel.output)  # numbered as the tensors of the workload without its grids
        rows = [grids[names[place]] for place in on_grid(without_grids(kernel.workload))]
        if rows:
            name = f"{kernel.output}.grids"
            constants[name] = torch.tensor([[g.step, g.zero] for g in rows], dtype=torch.float32)
            dims[name] = (len(rows), 2)
            kernels[i] = replace(kernel, inputs=(*kernel.inputs, name))
    calls = (*(((CallOrigin(),),) * len(entries)), *partition.calls)
    return replace(partition, network=replace(network, kernels=tuple(kernels), constants=constants), dims=dims, calls=calls)
