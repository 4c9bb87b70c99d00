"""From a workload to a kernel: which candidates there are, the TIR function of one, and how its parameters are packed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.ir.errors import MeasureError
from billhook.ir.grids import grids_input, on_grid, without_grids
from billhook.ir.target import Target
from billhook.ir.workload import TensorType, Workload

from . import generic
from .cpu import (
    attention,
    block_sparse,
    conv,
    depthwise,
    depthwise_int8,
    elementwise,
    group_norm,
    grouped,
    layout,
    linear,
    norm,
    pool,
    transpose,
    winograd,
)
from .cpu.candidate import Candidate
from .cpu.features import BF16_DOT, has_feature, int8_dot
from .cpu.reduced import is_reduced
from .toolchain import check_toolchain
from .tvm_any import tvm

check_toolchain()

KERNEL = "kernel"


def _unknown(_workload: Workload, _candidate: Candidate) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Template:
    """A way to make kernels: candidates() is empty for workloads that it does not cover."""

    name: str
    candidates: Callable[[Workload, Target], tuple[Candidate, ...]]
    lower: Callable[[Workload, Candidate, Target], Any]
    pack: Callable[[Workload, Candidate, Target, int, np.ndarray], np.ndarray]
    flat: bool = True  # the kernel takes flat buffers; False: tensors in their logical shapes
    tolerance: float = 1e-4  # largest error of a kernel against float64, relative to its largest output
    multiplications: Callable[[Workload, Candidate], int] = _unknown  # multiply-adds that no schedule of the kernel can save; 0 if unknown


_CPU = (depthwise, linear, norm, group_norm, attention, pool, transpose, layout, elementwise)
_GENERIC = Template(generic.NAME, generic.candidates, generic.lower, generic.pack, flat=False)
_WINOGRAD = Template(winograd.NAME, winograd.candidates, winograd.lower, winograd.pack, True, winograd.TOLERANCE, winograd.multiplications)
_WINOGRAD_BF16 = Template(
    winograd.REDUCED, winograd.candidates_reduced, winograd.lower, winograd.pack, True, winograd.TOLERANCE, winograd.multiplications
)
_CONV = Template(conv.NAME, conv.candidates, conv.lower, conv.pack, multiplications=conv.multiplications)
_GROUPED = Template(grouped.NAME, grouped.candidates, grouped.lower, grouped.pack, multiplications=grouped.multiplications)
_CONV_BF16 = Template(conv.REDUCED, conv.candidates_reduced, conv.lower, conv.pack, multiplications=conv.multiplications)
_LINEAR_BF16 = Template(linear.REDUCED, linear.candidates_reduced, linear.lower, linear.pack)
_CONV_INT8 = Template(conv.BYTES, conv.candidates_bytes, conv.lower, conv.pack, multiplications=conv.multiplications)
_LINEAR_INT8 = Template(linear.BYTES, linear.candidates_bytes, linear.lower, linear.pack)
_DEPTHWISE_INT8 = Template(depthwise_int8.NAME, depthwise_int8.candidates, depthwise_int8.lower, depthwise_int8.pack)
_INT8 = (_CONV_INT8, _LINEAR_INT8, _DEPTHWISE_INT8)
_SPARSE = Template(
    block_sparse.NAME, block_sparse.candidates, block_sparse.lower, block_sparse.pack, multiplications=block_sparse.multiplications
)
TEMPLATES = (
    *_INT8,
    _WINOGRAD_BF16,
    _CONV_BF16,
    _LINEAR_BF16,
    _WINOGRAD,
    _CONV,
    _GROUPED,
    _SPARSE,
    *(Template(m.NAME, m.candidates, m.lower, m.pack) for m in _CPU),
    _GENERIC,
)


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """Ways to make this kernel, the statically most promising first: of all templates that cover it, or generated if none does."""
    if is_reduced(workload) and not has_feature(target, BF16_DOT):
        return ()  # LLVM would call a library for every rounding
    if on_grid(workload):
        return _on_grid(workload, target)
    found = [c for template in TEMPLATES if template is not _GENERIC for c in template.candidates(workload, target)]
    return tuple(found) or _GENERIC.candidates(workload, target)


def _on_grid(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """Candidates of a kernel with values on a grid: those that multiply bytes, and only where there are none those that convert them."""
    if not has_feature(target, int8_dot(target)):
        return ()
    bare = without_grids(workload)
    exact = tuple(c for template in _INT8 for c in template.candidates(bare, target))
    return exact or tuple(c for t in TEMPLATES if t is not _GENERIC for c in t.candidates(bare, target))


def multiplies_bytes(workload: Workload, target: Target) -> bool:
    """Whether kernels of this workload multiply 8-bit integers, of the weight's grid too; others convert what they read."""
    names = [template.name for template in _INT8]
    return any(c.template in names for c in candidates(workload, target))


def lower(workload: Workload, candidate: Candidate, target: Target) -> Any:
    """The kernel as a TVM PrimFunc: the inputs in the workload's order, then the output. See `buffer_shape` for their shapes."""
    return _template(candidate).lower(without_grids(workload), candidate, target)


def pack(workload: Workload, candidate: Candidate, target: Target, index: int, array: np.ndarray) -> np.ndarray:
    """Parameter `index`, given in torch's order, as the flat float32 array that the kernel of this candidate reads."""
    if index == grids_input(workload):
        return np.ascontiguousarray(array, np.float32).reshape(-1)
    return _template(candidate).pack(without_grids(workload), candidate, target, index, array)


def tolerance(candidate: Candidate) -> float:
    """Largest error of the candidate's kernel against float64 on random inputs, relative to the largest output; more is rejected."""
    return _template(candidate).tolerance


def multiplications(workload: Workload, candidate: Candidate) -> int:
    """Multiply-adds that the candidate's kernel cannot do without; 0 where its template does not say."""
    return _template(candidate).multiplications(without_grids(workload), candidate)


def buffer_shape(given: TensorType, candidate: Candidate) -> tuple[int, ...] | None:
    """The shape in which the candidate's kernel takes a tensor of this type; None: flat, of whatever size `pack` gives."""
    return None if _template(candidate).flat else given.shape


def compile_kernel(workload: Workload, candidate: Candidate, target: Target) -> Any:
    """The kernel built for this machine: a callable that takes flat tensors, output last."""
    module = tvm.IRModule({KERNEL: lower(workload, candidate, target)})
    return tvm.tirx.build(module, target=tvm_target(target, reduced=is_reduced(workload)))


def tvm_target(target: Target, *, reduced: bool = False) -> Any:
    """TVM's target. Zen 4 kernels are scheduled for an Intel server core with the same instructions.

    LLVM's Zen models have large loop buffers, for which it unrolls the inner loops until the accumulators spill.
    reduced: for kernels that may multiply in bfloat16.
    """
    mcpu = "icelake-server" if target.mcpu in ("znver4", "znver5") else target.mcpu
    dot = [f"+{BF16_DOT}"] if reduced and has_feature(target, BF16_DOT) else []
    given = {"mcpu": mcpu, "mtriple": target.triple, "mattr": dot}
    return tvm.target.Target({"kind": target.kind, "num-cores": target.threads, **{k: v for k, v in given.items() if v}})


def _template(candidate: Candidate) -> Template:
    for template in TEMPLATES:
        if template.name == candidate.template:
            return template
    raise MeasureError(f"no template is called '{candidate.template}'; the stored choice is from another version, measure again")
