"""A program on an OpenCL device through pyopencl: constants uploaded once, one queue in order, timing by the device's events."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from billhook.codegen.gpu.hardware import check_launches, check_memory
from billhook.ir.errors import DataError, DeviceError, MeasureError
from billhook.ir.memory import ALIGNMENT

from .devices import LOCAL, gpu_of, local_device, opencl, opencl_target
from .program import OpenClProgram, numel, size_of

_POISON = np.uint8(0xFF)  # every float read before it is written is NaN
_GONE = {"DEVICE_NOT_AVAILABLE", "DEVICE_NOT_FOUND", "OUT_OF_HOST_MEMORY", "INVALID_DEVICE"}


class Session:
    """A loaded program on the local OpenCL device (or the one given). Buffers are freed with the object.

    MeasureError where the device refuses the kernels or the program exceeds its limits, DeviceError where the device is gone.
    """

    def __init__(self, program: OpenClProgram, device: Any = None) -> None:
        self._cl = opencl()
        self._program = program
        self.device = device if device is not None else local_device()
        here = gpu_of(opencl_target(LOCAL))
        check_launches(program.launches, program.local_bytes, here)
        check_memory(program.buffers(), here)
        with self._reported("loading the program"):
            self._load()

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, on the host, for inputs in torch's order."""
        self.set_inputs(*inputs)
        with self._reported("running the network"):
            self.poison()
            self._enqueue()
            self._queue.finish()
            return tuple(self._download(name, kind.shape, kind.dtype) for name, kind in self._program.outputs)

    def set_inputs(self, *inputs: torch.Tensor) -> None:
        """Copy inputs to the device. DataError if they do not fit."""
        if len(inputs) != len(self._program.inputs):
            raise DataError(f"the program takes {len(self._program.inputs)} inputs, {len(inputs)} were given")
        with self._reported("copying the inputs"):
            for given, (name, kind) in zip(inputs, self._program.inputs, strict=True):
                if tuple(given.shape) != kind.shape or given.dtype != getattr(torch, kind.dtype):
                    raise DataError(f"input '{name}' has to be {kind}, not {given.dtype} of shape {tuple(given.shape)}")
                self._upload(self._buffers[name], given)

    def poison(self) -> None:
        """Fill all intermediate memory with NaN, so that a value that nobody wrote shows."""
        if self._program.arena_bytes:
            self._cl.enqueue_fill_buffer(self._queue, self._arena, _POISON, 0, self._program.arena_bytes)

    def time_once(self) -> tuple[float, ...]:
        """Seconds of every launch of one inference on the inputs set last, from the device's own clock."""
        with self._reported("timing the network"):
            events = self._enqueue()
            self._queue.finish()
            return tuple((e.profile.end - e.profile.start) * 1e-9 for e in events)

    def infer(self) -> None:
        """One inference on the inputs set last, up to its end."""
        with self._reported("running the network"):
            self._enqueue()
            self._queue.finish()

    def _load(self) -> None:
        cl, program = self._cl, self._program
        if int(self.device.mem_base_addr_align) // 8 > ALIGNMENT:
            raise MeasureError(f"{self.device.name} wants buffers more widely aligned than {ALIGNMENT} bytes, which is not supported")
        self._context = cl.Context([self.device])
        self._queue = cl.CommandQueue(self._context, properties=cl.command_queue_properties.PROFILING_ENABLE)
        self._buffers: dict[str, Any] = {}
        self._arena = self._memory(program.arena_bytes)
        for name, offset in program.offsets.items():
            self._buffers[name] = self._arena.get_sub_region(offset, program.arena_bytes - offset)
        for name, kind in program.inputs:
            self._buffers[name] = self._memory(numel(kind.shape) * size_of(kind.dtype))
        for name, constant in program.constants.items():
            self._buffers[name] = self._memory(constant.nbytes)
            self._upload(self._buffers[name], constant)
        built = cl.Program(self._context, program.source).build()
        self._calls: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = []
        for launch in program.launches:
            kernel = cl.Kernel(built, launch.symbol)
            kernel.set_args(*(self._buffers[a] for a in launch.arguments))
            size = tuple(groups * items for groups, items in zip(launch.grid, launch.block, strict=True))
            self._calls.append((kernel, size, launch.block))

    def _enqueue(self) -> Sequence[Any]:
        return [self._cl.enqueue_nd_range_kernel(self._queue, kernel, size, block) for kernel, size, block in self._calls]

    def _memory(self, size: int) -> Any:
        return self._cl.Buffer(self._context, self._cl.mem_flags.READ_WRITE, max(size, ALIGNMENT))

    def _upload(self, buffer: Any, tensor: torch.Tensor) -> None:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        if array.nbytes:
            self._cl.enqueue_copy(self._queue, buffer, array)

    def _download(self, name: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        result = torch.empty(shape, dtype=getattr(torch, dtype))
        self._cl.enqueue_copy(self._queue, result.numpy(), self._buffers[name])
        return result

    @contextmanager
    def _reported(self, doing: str) -> Generator[None]:
        """Errors of the driver as one line: DeviceError where the device is gone, else MeasureError."""
        cl = self._cl
        try:
            yield
        except cl.Error as error:
            what = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if any(name in what for name in _GONE):
                raise DeviceError(
                    f"the OpenCL device {self.device.name} is gone while {doing}: {what}; connect it and run again"
                ) from error
            raise MeasureError(f"the OpenCL device {self.device.name} fails while {doing}: {what}") from error
