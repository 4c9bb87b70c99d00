"""Partition: from a graph in normal form to the kernels that are timed and shipped."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from billhook.ir.network import Network
from billhook.ir.program import state_of, tensor_args
from billhook.ir.target import Target
from billhook.ir.workload import TensorType

from .operators import dims_of, dtype_name
from .origin import CallOrigin, Extents, dims_meta
from .partition_emit import Emitter
from .partition_groups import Grouping


@dataclass(frozen=True)
class Partition:
    """A network, and where its extents and literals come from.

    dims: for every value and constant. calls: for every call of every kernel, in the network's order. blocked layouts
    follow `target` at every width.
    """

    network: Network
    dims: Mapping[str, Extents]
    calls: tuple[tuple[CallOrigin, ...], ...]
    target: Target


def partition(graph: fx.GraphModule, target: Target) -> Partition:
    """Partition a graph in inference normal form (passes.normalise) into kernels. Pure.

    Convolutions, linear maps and poolings come with the pointwise calls behind them; feature maps are channel-blocked with
    the target's block; what has no template becomes generated kernels on row-major tensors, which take the moves around
    them. Where a value is needed in the other layout, one `billhook.layout` kernel changes it for all that read it.
    """
    emitter = Emitter(Grouping(graph.graph, target), target)
    emitter.run()
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    outputs = tensor_args(next(iter(reversed(graph.graph.nodes))))
    names = tuple(emitter.row_major(value) for value in outputs)
    network = Network(
        inputs=tuple((n.name, TensorType(dims_of(n), dtype_name(n))) for n in placeholders),
        outputs=names,
        kernels=tuple(emitter.kernels),
        constants={
            name: state_of(graph, name) for name in sorted(emitter.constants | {str(n.target) for n in outputs if n.op == "get_attr"})
        },
    )
    dims = {**{n.name: dims_meta(n.meta) for n in placeholders}, **emitter.dims}
    return Partition(network, dims, tuple(emitter.origins), target)
