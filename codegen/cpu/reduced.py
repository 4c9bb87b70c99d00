"""Numbers narrower than float32 in kernels: how they are stored, converted, and multiplied in groups by one instruction.

A bfloat16 tensor lies in memory as uint16, because numpy has no such type and TVM's own passes would turn the arithmetic into emulation.
Two neighbouring channels fill one 32-bit lane: AVX512-BF16's vdpbf16ps multiplies both pairs of a lane and adds them to a float32.
TVM can print these instructions only through LLVM text that is linked into the kernel; LLVM then inlines it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T
from billhook.ir.grids import QUINT8
from billhook.ir.workload import TensorType, Workload

from . import gridded

BFLOAT16 = "bfloat16"
TOLERANCE = 3 * 2.0**-9  # largest error of a bfloat16 kernel against float64, in roundings of the largest output: one is unavoidable
_STORED = {BFLOAT16: "uint16", QUINT8: "uint8"}
_ROUND, _DOT = "billhook_round_bf16", "billhook_dot_bf16"


def storage(dtype: str) -> str:
    """The element type that buffers of logical type `dtype` have."""
    return _STORED.get(dtype, dtype)


def is_float(given: TensorType) -> bool:
    """Whether templates can read and write tensors of this type: they compute in float32."""
    return given.dtype in ("float32", BFLOAT16, QUINT8)


def is_reduced(workload: Workload) -> bool:
    """Whether a kernel may multiply in bfloat16: one of its activations is stored so."""
    return any(t.dtype == BFLOAT16 for t in (*workload.inputs, workload.output))


def storages(workload: Workload) -> list[str]:
    """What a kernel's buffers hold: its inputs, then its output. Those on a grid keep its name, so that loads and stores convert."""
    return [t.dtype if t.dtype == QUINT8 else storage(t.dtype) for t in (*workload.inputs, workload.output)]


def to_bits(array: np.ndarray) -> np.ndarray:
    """float32 numbers rounded to the nearest bfloat16 (ties to even), as uint16 of the same shape."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bits(array: np.ndarray) -> np.ndarray:
    """Inverse of `to_bits`: float32 numbers of the same shape."""
    return (array.astype(np.uint32) << 16).view(np.float32)


def widen(value: Any, lanes: int) -> Any:
    """A vector of stored bfloat16 numbers as float32."""
    wide = T.shift_left(T.cast(value, _typed("uint32", lanes)), _words(16, lanes))
    return T.reinterpret(_typed("float32", lanes), wide)


def narrow(value: Any, lanes: int) -> Any:
    """A float32 vector rounded to bfloat16, as it is stored."""
    return T.call_pure_extern(_typed("uint16", lanes), f"{_ROUND}_{lanes}", value)


def dot(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """A float32 vector plus left0 * right0 + left1 * right1 in every lane: left and right are int32 vectors of bfloat16 pairs."""
    return T.call_pure_extern(_typed("float32", lanes), f"{_DOT}_{lanes}", total, left, right)


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _words(value: int, lanes: int) -> Any:
    return T.uint32(value) if lanes == 1 else T.broadcast(T.uint32(value), lanes)


def intrinsics(dtypes: Sequence[str], *, arm: bool = False) -> str:
    """LLVM text of the functions above that kernels with buffers of these types may call; "" where they need none."""
    if QUINT8 in dtypes:
        return gridded.intrinsics(arm=arm) if "int32" in dtypes else ""
    if "uint16" not in dtypes:
        return ""
    dots = (4, 8, 16) if "int32" in dtypes else ()  # packed pairs; without them the text builds for every processor
    return "".join([*map(_round_text, (1, 4, 8, 16)), *map(_dot_text, dots)])


def _round_text(lanes: int) -> str:
    real, narrow_, stored = ("float", "bfloat", "i16") if lanes == 1 else (f"<{lanes} x {t}>" for t in ("float", "bfloat", "i16"))
    return f"""
define linkonce_odr {stored} @{_ROUND}_{lanes}({real} %x) alwaysinline {{
  %y = fptrunc {real} %x to {narrow_}
  %z = bitcast {narrow_} %y to {stored}
  ret {stored} %z
}}
"""


def _dot_text(lanes: int) -> str:
    real, pairs, words = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"<{lanes} x i32>"
    name = f"@llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}"
    return f"""
declare {real} {name}({real}, {pairs}, {pairs})
define linkonce_odr {real} @{_DOT}_{lanes}({real} %c, {words} %a, {words} %b) alwaysinline {{
  %x = bitcast {words} %a to {pairs}
  %y = bitcast {words} %b to {pairs}
  %r = call {real} {name}({real} %c, {pairs} %x, {pairs} %y)
  ret {real} %r
}}
"""
