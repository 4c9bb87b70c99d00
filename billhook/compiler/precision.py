"""Precisions: what a target needs for one, which pass makes it, and how far a network may then be from torch."""

from dataclasses import dataclass, replace

from billhook.codegen import lower
from billhook.codegen.backend import Backend
from billhook.codegen.cpu.features import BF16_DOT, INT8_DOT, INT8_DOT_ARM, has_feature, is_arm
from billhook.costmodel.partition import Partition
from billhook.ir.errors import OptionError
from billhook.ir.target import Target
from billhook.passes.on_grids import OnGrids, put_on_grids
from billhook.passes.precision import narrow_values
from billhook.passes.quantise import observe

from .calibration import Batches


@dataclass(frozen=True, slots=True)
class Precision:
    """name: as in `bh.compile(precision=...)`; tolerance: largest error of a network against torch in float32, relative to
    the largest output.

    feature, flag: the instruction set that it needs, as LLVM and as Linux call it; "" for none.
    """

    name: str
    tolerance: float
    feature: str = ""
    flag: str = ""


PRECISIONS = {
    "fp32": Precision("fp32", 1e-4),
    "bf16": Precision("bf16", 0.15, BF16_DOT, "avx512_bf16"),  # torch's autocast has 0.094 on a random mobilenet_v2
    "int8": Precision("int8", 0.5, INT8_DOT, "avx512_vnni"),  # 0.5: of random deep networks; trained ones are judged by accuracy
}


def check_precision(name: str, target: Target) -> Precision:
    """The precision of this name, if the target has what it needs. OptionError otherwise."""
    if name not in PRECISIONS:
        raise OptionError(f"--precision {name}: unknown; use one of {', '.join(PRECISIONS)}")
    found = PRECISIONS[name]
    if name == "int8" and is_arm(target):
        found = replace(found, feature=INT8_DOT_ARM, flag="asimddp")
    if found.feature and not has_feature(target, found.feature):
        raise OptionError(f"--precision {name}: needs the processor flag {found.flag}, which {target.mcpu or target.kind} lacks; use fp32")
    return found


def in_precision(partition: Partition, precision: Precision, backend: Backend) -> Partition:
    """The partition with its values stored as the precision says, where the backend has kernels for them. Not for int8."""
    if precision.name == "fp32":
        return partition
    return narrow_values(partition, lambda workload: bool(backend.candidates(workload, partition.target)))


def in_int8(partition: Partition, backend: Backend, batches: Batches) -> OnGrids:
    """The partition with values on the grids that calibration finds. DataError where a value is not finite."""
    ranges = observe(partition.network, batches)
    return put_on_grids(
        partition,
        ranges,
        lambda workload: bool(backend.candidates(workload, partition.target)),
        lambda workload: lower.multiplies_bytes(workload, partition.target),
    )
