"""Bytes on a grid in kernels: templates load and store real numbers in float32, and buffers convert (ir/grids.py says what they hold).

AVX512-VNNI's vpdpbusd multiplies four unsigned with four signed bytes per 32-bit lane and adds the products to an int32; nothing saturates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billhook.codegen.tvm_any import T
from billhook.ir.grids import QUINT8

_DOT = "billhook_dot_int8"
_TO_INTEGER = 1.5 * 2.0**23  # added to a small float32, this leaves the nearest integer (ties to even) in its lowest bits


@dataclass(frozen=True, slots=True)
class OnGrid:
    """A flat buffer of bytes, and its grid as scalars; inverse: 1 / step."""

    bytes: Any
    step: Any
    zero: Any
    inverse: Any
    dtype: str = QUINT8

    def load(self, index: Any, lanes: int) -> Any:
        """The real numbers from `index` on."""
        stored = self.bytes[index] if lanes == 1 else self.bytes[T.ramp(index, 1, lanes)]
        return (T.cast(stored, _typed("float32", lanes)) - _spread(self.zero, lanes)) * _spread(self.step, lanes)

    def store(self, index: Any, value: Any, lanes: int) -> None:
        """Store the nearest numbers of the grid: those of its ends for numbers beyond."""
        place = value * _spread(self.inverse, lanes) + _spread(self.zero, lanes)
        clipped = T.min(T.max(place, _spread(T.float32(0.0), lanes)), _spread(T.float32(255.0), lanes))
        bits = T.reinterpret(_typed("int32", lanes), clipped + _spread(T.float32(_TO_INTEGER), lanes))
        T.buffer_store(self.bytes, T.cast(bits, _typed("uint8", lanes)), [index if lanes == 1 else T.ramp(index, 1, lanes)])

    @property
    def offset(self) -> Any:
        """The zero point as an int32 scalar."""
        return T.cast(self.zero, "int32")


def attach(kinds: Sequence[str], buffers: Sequence[Any], grids: Any) -> list[Any]:
    """Buffers of these logical types; those on a grid with the rows of `grids`, in order."""
    found: list[Any] = []
    row = 0
    for kind, buffer in zip(kinds, buffers, strict=True):
        if kind != QUINT8:
            found.append(buffer)
            continue
        step, zero = T.bind(grids[2 * row]), T.bind(grids[2 * row + 1])
        found.append(OnGrid(buffer, step, zero, T.bind(T.float32(1.0) / step)))
        row += 1
    return found


def dot(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """An int32 vector plus the four products in every lane: left holds unsigned, right signed bytes, both as int32."""
    return T.call_pure_extern(_typed("int32", lanes), f"{_DOT}_{lanes}", total, left, right)


def intrinsics(lanes: int) -> str:
    """LLVM text of `dot`."""
    words, members = f"<{lanes} x i32>", f"<{4 * lanes} x i8>"
    name = f"@llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return f"""
declare {words} {name}({words}, {members}, {members})
define linkonce_odr {words} @{_DOT}_{lanes}({words} %c, {words} %a, {words} %b) alwaysinline {{
  %x = bitcast {words} %a to {members}
  %y = bitcast {words} %b to {members}
  %r = call {words} {name}({words} %c, {members} %x, {members} %y)
  ret {words} %r
}}
"""


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _spread(value: Any, lanes: int) -> Any:
    return value if lanes == 1 else T.broadcast(value, lanes)
