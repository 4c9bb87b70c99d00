"""The library that times one kernel on a remote device: the kernel, a driver that finds its weights cold, and a look at the processor.

TVM's remote timer repeats one call on the same arguments, which would find the weights in the caches; in a network they are cold.
So what is timed is a loop over copies of the parameters, which are made on the device: only one copy travels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from billhook.ir.target import Target
from billhook.ir.workload import Role, Workload

from .cpu.candidate import Candidate
from .lower import KERNEL, lower, tvm_target
from .tvm_any import IRBuilder, T, tvm

ROTATE, SPREAD, CPUINFO = "rotate", "spread", "cpuinfo"
CPUINFO_BYTES = 4096  # the first processor's entry
_ALIGNED = 64  # bytes: what kernels may assume of a buffer's address


@dataclass(frozen=True, slots=True)
class Buffer:
    """An argument of the kernel: its shape, its type, and whether it is a parameter, of which there are copies."""

    shape: tuple[int, ...]
    dtype: str
    role: Role

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def pitch(self) -> int:
        """Elements from one copy to the next."""
        step = _ALIGNED // tvm.DataType(self.dtype).itemsize
        return -(-self.elements // step) * step


def remote_library(workload: Workload, candidate: Candidate, target: Target, buffers: Sequence[Buffer], copies: int) -> Any:
    """A built module of four functions; `buffers` are the kernel's arguments, output last.

    KERNEL(*arguments) is the kernel; SPREAD(parameter, copies_of_it, ...) fills the copies; ROTATE(*arguments), with
    the copies in place of each parameter, runs the kernel once for each copy; CPUINFO(bytes) reads /proc/cpuinfo.
    """
    functions = {
        KERNEL: lower(workload, candidate, target),
        ROTATE: _rotate(buffers, copies),
        SPREAD: _spread([b for b in buffers if b.role == "parameter"], copies),
        CPUINFO: _cpuinfo(),
    }
    return tvm.tirx.build(tvm.IRModule(functions), target=tvm_target(target))


def cpuinfo_library(kind: str, triple: str = "") -> Any:
    """A module with CPUINFO alone, for any processor of this machine's architecture or of the triple's."""
    target = {"kind": kind, **({"mtriple": triple} if triple else {})}
    return tvm.tirx.build(tvm.IRModule({CPUINFO: _cpuinfo()}), target=tvm.target.Target(target))


def _function(name: str, arguments: Sequence[tuple[int, str]], body: Callable[..., None]) -> Any:
    """A PrimFunc over flat buffers of (elements, dtype)."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"global_symbol": name})
        handles = [T.arg(f"p{i}", T.handle()) for i in range(len(arguments))]
        body(*[T.match_buffer(handle, (n,), dtype) for handle, (n, dtype) in zip(handles, arguments, strict=True)])
    return builder.get()


def _rotate(buffers: Sequence[Buffer], copies: int) -> Any:
    def body(*given: Any) -> None:
        with T.serial(0, copies) as copy:
            arguments: list[Any] = []
            for buffer, data in zip(buffers, given, strict=True):
                start = copy * buffer.pitch if buffer.role == "parameter" else 0
                shape, kind = T.tvm_stack_make_shape(*buffer.shape), tvm.tirx.const(0, buffer.dtype)
                arguments.append(T.tvm_stack_make_array(T.address_of(data[start]), shape, 0, len(buffer.shape), kind, 0))
            T.evaluate(T.tvm_call_cpacked(KERNEL, *arguments))

    return _function(ROTATE, [(b.pitch * copies if b.role == "parameter" else b.elements, b.dtype) for b in buffers], body)


def _spread(parameters: Sequence[Buffer], copies: int) -> Any:
    def body(*given: Any) -> None:
        for place, parameter in enumerate(parameters):
            source, goal = given[2 * place], given[2 * place + 1]
            with T.serial(0, copies) as copy, T.serial(0, parameter.elements) as i:
                T.buffer_store(goal, source[i], [copy * parameter.pitch + i])
        if not parameters:
            T.evaluate(0)

    sizes = [size for p in parameters for size in ((p.elements, p.dtype), (p.pitch * copies, p.dtype))]
    return _function(SPREAD, sizes, body)


def _cpuinfo() -> Any:
    def body(data: Any) -> None:
        file = T.call_extern("int32", "open", "/proc/cpuinfo", 0)
        T.evaluate(T.call_extern("int64", "read", file, data.data, tvm.tirx.const(CPUINFO_BYTES, "int64")))

    return _function(CPUINFO, [(CPUINFO_BYTES, "uint8")], body)
