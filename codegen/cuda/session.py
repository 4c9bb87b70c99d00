"""A program on a GPU: constants uploaded once, the launch sequence captured as a CUDA graph, runs and timing through it."""

import ctypes
from collections.abc import Callable
from typing import Any, Self

import torch

from billhook.codegen.gpu.launch import Launch
from billhook.ir.errors import DataError

from .driver import Driver
from .program import CudaProgram

_AFTER_COPIES = 0  # a stream that waits for copies and fills, which the driver queues on its default stream
_POISON = 0xFF  # every float read before it is written is NaN


class Session:
    """A loaded program. Close it, or use it in a with statement, to free its device memory.

    Launches are replayed as one CUDA graph, so the host's launch overhead is paid once per inference. `driver` stays the caller's.
    """

    def __init__(self, program: CudaProgram, driver: Driver) -> None:
        self._program, self._driver = program, driver
        self._freeing: list[Callable[[], None]] = []
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free everything, in the reverse order of its making."""
        while self._freeing:
            self._freeing.pop()()

    def set_inputs(self, *inputs: torch.Tensor) -> None:
        """Copy inputs (in torch's order) to the device. DataError if they do not fit."""
        if len(inputs) != len(self._program.inputs):
            raise DataError(f"the program takes {len(self._program.inputs)} inputs, {len(inputs)} were given")
        for given, (name, kind) in zip(inputs, self._program.inputs, strict=True):
            if tuple(given.shape) != kind.shape or given.dtype != getattr(torch, kind.dtype):
                raise DataError(f"input '{name}' has to be {kind}, not {given.dtype} of shape {tuple(given.shape)}")
            self._upload(self._addresses[name], given)

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, on the host, for inputs on the host or the device."""
        self.set_inputs(*inputs)
        self.poison()
        self._replay()
        self._driver.call("cuStreamSynchronize", self._stream)
        return tuple(self._download(name, kind.shape, kind.dtype) for name, kind in self._program.outputs)

    def poison(self) -> None:
        """Fill all intermediate memory with NaN, so that a value that nobody wrote shows."""
        if self._program.arena_bytes:
            self._driver.call("cuMemsetD8_v2", self._arena, _POISON, self._program.arena_bytes)

    def time(self, repeats: int, *, graph: bool = True) -> list[float]:
        """Seconds of each of `repeats` inferences on the inputs set last, by events on the device; graph: False times single launches."""
        run = self._replay if graph else self._launch_all
        times: list[float] = []
        for _ in range(repeats):
            self._driver.call("cuEventRecord", self._events[0], self._stream)
            run()
            self._driver.call("cuEventRecord", self._events[1], self._stream)
            self._driver.call("cuEventSynchronize", self._events[1])
            times.append(self._driver.elapsed(*self._events))
        return times

    def _load(self) -> None:
        driver, program = self._driver, self._program
        self._image = ctypes.create_string_buffer(program.image, len(program.image))
        module = self._made("cuModuleUnload", driver.handle("cuModuleLoadData", self._image))
        self._stream = self._made("cuStreamDestroy_v2", driver.handle("cuStreamCreate", _AFTER_COPIES))
        self._events = tuple(self._made("cuEventDestroy_v2", driver.handle("cuEventCreate", 0)) for _ in range(2))
        self._arena = self._memory(program.arena_bytes)
        self._addresses = {name: self._arena + offset for name, offset in program.offsets.items()}
        for name, kind in program.inputs:
            self._addresses[name] = self._memory(torch.Size(kind.shape).numel() * getattr(torch, kind.dtype).itemsize)
        for name, constant in program.constants.items():
            self._addresses[name] = self._memory(constant.nbytes)
            self._upload(self._addresses[name], constant)
        functions = {n.symbol: driver.function(module, n.symbol, n.shared_bytes) for n in program.launches}
        self._calls = [(functions[n.symbol], n, self._parameters(n)) for n in program.launches]
        self._launch_all()  # errors of a launch show here, not inside a capture
        driver.call("cuStreamSynchronize", self._stream)
        self._graph = self._captured()

    def _captured(self) -> Any:
        driver = self._driver
        driver.capture(self._stream)
        self._launch_all()
        graph = ctypes.c_void_p()
        driver.call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        self._made("cuGraphDestroy", graph)
        return self._made("cuGraphExecDestroy", driver.handle("cuGraphInstantiateWithFlags", graph, 0))

    def _parameters(self, launch: Launch) -> Any:
        """The launch's argument array: addresses of the addresses. The values have to outlive the launch, so they are kept with it."""
        values = [ctypes.c_uint64(self._addresses[a]) for a in launch.arguments]
        return (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values)), values

    def _launch_all(self) -> None:
        for function, launch, (parameters, _) in self._calls:
            self._driver.call("cuLaunchKernel", function, *launch.grid, *launch.block, launch.shared_bytes, self._stream, parameters, None)

    def _replay(self) -> None:
        self._driver.call("cuGraphLaunch", self._graph, self._stream)

    def _made(self, free: str, made: Any) -> Any:
        self._freeing.append(lambda: self._driver.call(free, made))
        return made

    def _memory(self, size: int) -> int:
        return self._made("cuMemFree_v2", self._driver.allocate(size))

    def _upload(self, address: int, tensor: torch.Tensor) -> None:
        held = tensor.detach().cpu().contiguous()
        self._driver.call("cuMemcpyHtoD_v2", address, held.data_ptr(), held.nbytes)

    def _download(self, name: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        result = torch.empty(shape, dtype=getattr(torch, dtype))
        self._driver.call("cuMemcpyDtoH_v2", result.data_ptr(), self._addresses[name], result.nbytes)
        return result
