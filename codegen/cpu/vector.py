"""Thin layer over TVM's TIR builder: flat buffers, vector loads and stores, loops that vanish when they run once.

A kernel takes its inputs in the workload's order and its output last, each a flat 1-D buffer. Arithmetic is in float32: loads and stores
convert where a buffer holds bfloat16 numbers or bytes on a grid. Accumulators are separate small
buffers: TVM puts those on the stack and LLVM keeps them in registers, where one large array would become a heap allocation.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from billhook.codegen.tvm_any import IRBuilder, T
from billhook.ir.grids import QUINT8

from . import gridded, reduced
from .gridded import OnGrid

KERNEL = "kernel"  # every kernel's global symbol; the network builder renames it


def flat_kernel(
    sizes: Sequence[int], body: Callable[..., None], opaque: int | None = None, dtypes: Sequence[str] | None = None, *, arm: bool = False
) -> Any:
    """A PrimFunc over flat buffers of these element counts; `body` receives the buffers and emits the statements.

    dtypes: what the buffers hold; all float32 by default. Where some are on a grid, the kernel takes the grids before its output.
    arm: whether products of bytes are Arm's.

    With `opaque`, the size of that buffer is a run-time value to LLVM, and `body` receives first an expression that is always 1 but
    that LLVM cannot fold: an extent multiplied by it is never unrolled. (TVM passes no unroll hints to LLVM.)
    tirx.noalias is what lets LLVM keep accumulators in registers: without it every multiply-add reloads and stores.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name(KERNEL)
        T.func_attr({"global_symbol": KERNEL, "tirx.noalias": True})
        handles = [T.arg(f"p{i}", T.handle()) for i in range(len(sizes) - 1)]
        told = T.arg("grids", T.handle()) if QUINT8 in (dtypes or ()) else None
        handles.append(T.arg(f"p{len(sizes) - 1}", T.handle()))
        shapes: list[Any] = list(sizes)
        first: list[Any] = []
        if opaque is not None:
            shapes[opaque] = T.Var("elements", "int32")
            first = [T.floordiv(shapes[opaque], sizes[opaque])]
        kinds = dtypes or ["float32"] * len(sizes)
        buffers = [T.match_buffer(h, (n,), reduced.storage(kind)) for h, n, kind in zip(handles, shapes, kinds, strict=True)]
        if told is not None:
            buffers = gridded.attach(kinds, buffers, T.match_buffer(told, (2 * kinds.count(QUINT8),), "float32"), arm=arm)
        text = reduced.intrinsics(kinds, arm=arm)
        with T.attr({"pragma_import_llvm": text}) if text else nullcontext():
            body(*first, *buffers)
    return builder.get()


@contextmanager
def loop(start: Any, stop: Any) -> Generator[Any]:
    """A serial loop over [start, stop); a plain integer where it is known to run once."""
    if isinstance(start, int) and isinstance(stop, int) and stop - start == 1:
        yield start
    else:
        with T.serial(start, stop) as index:
            yield index


_WORTH_SHARING = 1 << 17  # vector elements of arithmetic or traffic that outweigh waking the other threads


def sharing(threads: int, work: int) -> int:
    """Threads that should share a kernel of this work (multiply-adds, or elements moved)."""
    return threads if work >= _WORTH_SHARING else 1


def balance(count: int, threads: int) -> float:
    """How evenly `count` equal pieces spread over the threads: 1 if evenly, 0.5 if half of the threads' time is wasted."""
    return count / (threads * -(-count // threads))


@contextmanager
def each(count: int, threads: int) -> Generator[Any]:
    """A loop over [0, count) whose iterations are independent: shared among the threads if there are several."""
    if threads > 1 and count > 1:
        with T.parallel(0, count) as index:
            yield index
    else:
        with loop(0, count) as index:
            yield index


def divide(value: Any, by: int) -> tuple[Any, Any]:
    """Quotient and remainder of an index by a constant."""
    if isinstance(value, int) or by == 1:
        return (value, 0) if by == 1 else divmod(value, by)
    return T.floordiv(value, by), T.floormod(value, by)


def load(buffer: Any, index: Any, lanes: int) -> Any:
    """The vector of `lanes` elements that starts at `index`; a scalar if `lanes` is 1."""
    if isinstance(buffer, OnGrid):
        return buffer.load(index, lanes)
    value = buffer[index] if lanes == 1 else buffer[T.ramp(index, 1, lanes)]
    return reduced.widen(value, lanes) if buffer.dtype == "uint16" else value


def store(buffer: Any, index: Any, value: Any, lanes: int) -> None:
    """Store a vector of `lanes` elements (a scalar if `lanes` is 1) at `index`."""
    if isinstance(buffer, OnGrid):
        buffer.store(index, value, lanes)
        return
    kept = reduced.narrow(value, lanes) if buffer.dtype == "uint16" else value
    T.buffer_store(buffer, kept, [index if lanes == 1 else T.ramp(index, 1, lanes)])


def splat(value: Any, lanes: int) -> Any:
    """A scalar (Python number or TIR expression) in every lane."""
    return T.broadcast(T.float32(float(value)) if isinstance(value, int | float) else value, lanes)


def bind(value: Any) -> Any:
    """Name a value so that it is computed once, however often it is used."""
    return T.bind(value)


def register(lanes: int, value: Any | None = None, dtype: str = "float32") -> Any:
    """A one-vector accumulator, initialised to `value` (zero if None)."""
    buffer = T.alloc_buffer((lanes,), dtype)
    zero = {"int32": T.int32, "uint8": T.uint8}.get(dtype, T.float32)(0)
    store(buffer, 0, T.broadcast(zero, lanes) if value is None else value, lanes)
    return buffer


def accumulate(accumulator: Any, value: Any, lanes: int) -> None:
    """Add a vector to an accumulator."""
    store(accumulator, 0, load(accumulator, 0, lanes) + value, lanes)


def load_partial(buffer: Any, index: Any, count: int, lanes: int) -> Any:
    """A vector whose first `count` lanes are read from the buffer; the others are zero and not read from memory."""
    if count == lanes:
        return load(buffer, index, lanes)
    scratch = register(lanes)
    with loop(0, count) as i:
        T.buffer_store(scratch, load(buffer, index + i, 1), [i])
    return load(scratch, 0, lanes)


def store_partial(buffer: Any, index: Any, value: Any, count: int, lanes: int) -> None:
    """Store the first `count` lanes only."""
    if count == lanes:
        store(buffer, index, value, lanes)
        return
    scratch = register(lanes, value)
    with loop(0, count) as i:
        store(buffer, index + i, scratch[i], 1)
