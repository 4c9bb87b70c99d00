"""Which values of a network are stored, and which kernels therefore compute, in a narrower type than float32.

A pass over the partition: what it decided is what `print(network)` shows as element types. A value between two kernels becomes narrow
where the kernel that writes it and all that read it have a template for that; inputs, outputs and parameters keep their types (a
template packs its weights in whatever type it multiplies in). Sums are in float32 everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from billhook.costmodel.partition import Partition
from billhook.ir.network import Kernel, Network
from billhook.ir.workload import TensorType, Workload

BFLOAT16 = "bfloat16"

Covered = Callable[[Workload], bool]


@dataclass(frozen=True, slots=True)
class Precision:
    """How much of a network is narrow: kernels that read or write narrow values, and those that do not, by name."""

    dtype: str
    narrow: tuple[str, ...]
    full: tuple[str, ...]

    def __str__(self) -> str:
        rest = f"; float32: {', '.join(self.full)}" if self.full else ""
        return f"{len(self.narrow)} of {len(self.narrow) + len(self.full)} kernels in {self.dtype}{rest}"


def narrow_values(partition: Partition, covered: Covered, dtype: str = BFLOAT16) -> Partition:
    """The partition with every value in `dtype` that can be. Pure.

    covered: whether the target has a kernel for a workload. The largest set of values for which every kernel is covered: a kernel that is
    not covered takes its own values back to float32, until all are.
    """
    network = partition.network
    fixed = {name for name, _ in network.inputs} | set(network.outputs) | set(network.constants)
    values = {k.output for k in network.kernels if k.workload.output.dtype == "float32"} - fixed
    known: dict[Workload, bool] = {}

    def fits(workload: Workload) -> bool:
        if workload not in known:
            known[workload] = covered(workload)
        return known[workload]

    while True:
        failing = [k for k in network.kernels if _touches(k, values) and not fits(_narrowed(k, values, dtype).workload)]
        if not failing:
            return replace(partition, network=_with_narrow(network, values, dtype))
        values -= {name for k in failing for name in (*k.inputs, k.output)}


def precision_of(network: Network, dtype: str = BFLOAT16) -> Precision:
    """How much of a network is in `dtype`."""
    narrow = {k.name for k in network.kernels if any(t.dtype == dtype for t in (*k.workload.inputs, k.workload.output))}
    names = dict.fromkeys(k.name for k in network.kernels)
    return Precision(dtype, tuple(n for n in names if n in narrow), tuple(n for n in names if n not in narrow))


def _touches(kernel: Kernel, values: set[str]) -> bool:
    return not values.isdisjoint((*kernel.inputs, kernel.output))


def _narrowed(kernel: Kernel, values: set[str], dtype: str) -> Kernel:
    """A kernel with these values narrow."""
    workload = kernel.workload
    inputs = tuple(_typed(t, name in values, dtype) for t, name in zip(workload.inputs, kernel.inputs, strict=True))
    return replace(kernel, workload=replace(workload, inputs=inputs, output=_typed(workload.output, kernel.output in values, dtype)))


def _typed(given: TensorType, narrow: bool, dtype: str) -> TensorType:
    return replace(given, dtype=dtype) if narrow else given


def _with_narrow(network: Network, values: set[str], dtype: str) -> Network:
    return replace(network, kernels=tuple(_narrowed(k, values, dtype) if _touches(k, values) else k for k in network.kernels))
