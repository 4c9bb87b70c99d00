"""Bytes on a grid in kernels: templates load and store real numbers in float32, and buffers convert (ir/grids.py says what they hold).

AVX512-VNNI's vpdpbusd multiplies four unsigned with four signed bytes per 32-bit lane and adds the products to an int32; nothing saturates.
Arm's sdot takes signed bytes only: data is read as byte - 128, and so is its zero point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billhook.codegen.tvm_any import T
from billhook.ir.grids import QUINT8

_DOT, _PACK = "billhook_dot_int8", "billhook_pack_int8"
_PACKED = (4, 8, 16)  # lanes
_SIGNED = 128  # what is taken off a byte to make it signed: its highest bit turned over
_TO_INTEGER = 1.5 * 2.0**23  # added to a small float32, this leaves the nearest integer (ties to even) in its lowest bits


@dataclass(frozen=True, slots=True)
class OnGrid:
    """A flat buffer of bytes, and its grid as scalars; inverse: 1 / step; shift: what products take off each byte."""

    bytes: Any
    step: Any
    zero: Any
    inverse: Any
    shift: int = 0
    packs: bool = False  # whether the kernel is linked with `_pack_text`
    dtype: str = QUINT8

    def load(self, index: Any, lanes: int) -> Any:
        """The real numbers from `index` on."""
        return self.real(self.stored(index, lanes), lanes)

    def stored(self, index: Any, lanes: int) -> Any:
        """The bytes from `index` on; they are in the order of the real numbers."""
        return self.bytes[index] if lanes == 1 else self.bytes[T.ramp(index, 1, lanes)]

    def real(self, stored: Any, lanes: int) -> Any:
        """What bytes stand for."""
        return (T.cast(stored, _typed("float32", lanes)) - _spread(self.zero, lanes)) * _spread(self.step, lanes)

    def store(self, index: Any, value: Any, lanes: int) -> None:
        """Store the nearest numbers of the grid: those of its ends for numbers beyond (packed: up to 2^31 steps beyond)."""
        where = [index if lanes == 1 else T.ramp(index, 1, lanes)]
        if self.packs and lanes in _PACKED:
            signed = value * _spread(self.inverse, lanes) + _spread(self.zero - T.float32(_SIGNED), lanes)
            T.buffer_store(self.bytes, T.call_pure_extern(_typed("uint8", lanes), f"{_PACK}_{lanes}", signed), where)
            return
        T.buffer_store(self.bytes, T.cast(self.nearest(value, lanes), _typed("uint8", lanes)), where)

    def nearest(self, value: Any, lanes: int) -> Any:
        """The nearest bytes as int32."""
        place = value * _spread(self.inverse, lanes) + _spread(self.zero, lanes)
        clipped = T.min(T.max(place, _spread(T.float32(0.0), lanes)), _spread(T.float32(255.0), lanes))
        bits = T.reinterpret(_typed("int32", lanes), clipped + _spread(T.float32(_TO_INTEGER), lanes))
        return T.bitwise_and(bits, _spread(T.int32(255), lanes))

    @property
    def offset(self) -> Any:
        """The zero point of products as an int32 scalar."""
        return T.cast(self.zero, "int32") - T.int32(self.shift)


def attach(kinds: Sequence[str], buffers: Sequence[Any], grids: Any, *, arm: bool) -> list[Any]:
    """Buffers of these logical types; those on a grid with the rows of `grids`, in order. arm: they are multiplied by Arm's `dot`."""
    packs = not arm and "int32" in kinds
    found: list[Any] = []
    row = 0
    for kind, buffer in zip(kinds, buffers, strict=True):
        if kind != QUINT8:
            found.append(buffer)
            continue
        step, zero = T.bind(grids[2 * row]), T.bind(grids[2 * row + 1])
        found.append(OnGrid(buffer, step, zero, T.bind(T.float32(1.0) / step), _SIGNED if arm else 0, packs))
        row += 1
    return found


def dot(total: Any, left: Any, right: Any, lanes: int) -> Any:
    """An int32 vector plus the four products in every lane: left holds unsigned, right signed bytes, both as int32.

    On Arm, plus the products of left - 128 (`OnGrid.shift`).
    """
    return T.call_pure_extern(_typed("int32", lanes), f"{_DOT}_{lanes}", total, left, right)


def intrinsics(*, arm: bool) -> str:
    """LLVM text of `dot`, and of what packs results."""
    return _arm_text() if arm else "".join([*map(_x86_text, (4, 8, 16)), *map(_pack_text, _PACKED)])


def _x86_text(lanes: int) -> str:
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


def _pack_text(lanes: int) -> str:
    """Rounded to integers, ties to even, saturated to signed bytes (one instruction each), their highest bits turned over."""
    real, words, packed = (f"<{lanes} x {t}>" for t in ("float", "i32", "i8"))
    name, more = {
        4: ("sse2.cvtps2dq", ""),
        8: ("avx.cvt.ps2dq.256", ""),
        16: ("avx512.mask.cvtps2dq.512", f", {words} zeroinitializer, i16 -1, i32 4"),
    }[lanes]
    types = "".join(f", {argument.split()[0] if argument[0] == 'i' else words}" for argument in more.split(", ")[1:])

    def every(kind: str, value: int) -> str:
        return "<" + ", ".join([f"{kind} {value}"] * lanes) + ">"

    return f"""
declare {words} @llvm.x86.{name}({real}{types})
declare {words} @llvm.smax.v{lanes}i32({words}, {words})
declare {words} @llvm.smin.v{lanes}i32({words}, {words})
define linkonce_odr {packed} @{_PACK}_{lanes}({real} %x) alwaysinline {{
  %i = call {words} @llvm.x86.{name}({real} %x{more})
  %l = call {words} @llvm.smax.v{lanes}i32({words} %i, {words} {every("i32", -_SIGNED)})
  %h = call {words} @llvm.smin.v{lanes}i32({words} %l, {words} {every("i32", _SIGNED - 1)})
  %b = trunc {words} %h to {packed}
  %r = xor {packed} %b, {every("i8", -_SIGNED)}
  ret {packed} %r
}}
"""


def _arm_text() -> str:
    turned = ", ".join(["i32 -2139062144"] * 4)  # 0x80 in every byte
    return f"""
declare <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>, <16 x i8>, <16 x i8>)
define linkonce_odr <4 x i32> @{_DOT}_4(<4 x i32> %c, <4 x i32> %a, <4 x i32> %b) alwaysinline {{
  %s = xor <4 x i32> %a, <{turned}>
  %x = bitcast <4 x i32> %s to <16 x i8>
  %y = bitcast <4 x i32> %b to <16 x i8>
  %r = call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32> %c, <16 x i8> %x, <16 x i8> %y)
  ret <4 x i32> %r
}}
"""


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _spread(value: Any, lanes: int) -> Any:
    return value if lanes == 1 else T.broadcast(value, lanes)
