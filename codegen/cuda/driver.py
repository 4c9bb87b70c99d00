"""The CUDA driver's functions that running a program needs, through ctypes: the device machine needs no compiler and no package."""

import ctypes
from typing import Any

from billhook.ir.errors import MeasureError, ToolchainError

LIBRARY = "libcuda.so.1"
_THREAD_LOCAL_CAPTURE = 1
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76
_POINTER, _SIZE, _INT, _UINT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UINT,),
    "cuDriverGetVersion": (_POINTER,),
    "cuDeviceGet": (_POINTER, _INT),
    "cuDeviceGetName": (_POINTER, _INT, _INT),
    "cuDeviceGetAttribute": (_POINTER, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_POINTER, _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxSetCurrent": (_POINTER,),
    "cuModuleLoadData": (_POINTER, _POINTER),
    "cuModuleUnload": (_POINTER,),
    "cuModuleGetFunction": (_POINTER, _POINTER, ctypes.c_char_p),
    "cuFuncSetAttribute": (_POINTER, _INT, _INT),
    "cuMemAlloc_v2": (_POINTER, _SIZE),
    "cuMemFree_v2": (ctypes.c_uint64,),
    "cuMemcpyHtoD_v2": (ctypes.c_uint64, _POINTER, _SIZE),
    "cuMemcpyDtoH_v2": (_POINTER, ctypes.c_uint64, _SIZE),
    "cuMemsetD8_v2": (ctypes.c_uint64, ctypes.c_ubyte, _SIZE),
    "cuStreamCreate": (_POINTER, _UINT),
    "cuStreamDestroy_v2": (_POINTER,),
    "cuStreamSynchronize": (_POINTER,),
    "cuStreamBeginCapture_v2": (_POINTER, _INT),
    "cuStreamEndCapture": (_POINTER, _POINTER),
    "cuGraphInstantiateWithFlags": (_POINTER, _POINTER, ctypes.c_ulonglong),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphExecDestroy": (_POINTER,),
    "cuGraphDestroy": (_POINTER,),
    "cuEventCreate": (_POINTER, _UINT),
    "cuEventRecord": (_POINTER, _POINTER),
    "cuEventSynchronize": (_POINTER,),
    "cuEventElapsedTime": (_POINTER, _POINTER, _POINTER),
    "cuEventDestroy_v2": (_POINTER,),
    "cuLaunchKernel": (_POINTER, *(_UINT,) * 7, _POINTER, _POINTER, _POINTER),
}


class Driver:
    """The driver library and one device's primary context, which PyTorch shares. Every return code is checked.

    ToolchainError if there is no driver, no such device, or one below compute capability 8.0.
    """

    def __init__(self, device: int = 0, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise ToolchainError(f"no CUDA driver ({library}); run this on a machine with an NVIDIA GPU") from error
        for name, arguments in _ARGUMENTS.items():
            getattr(self._library, name).argtypes = arguments
        self._device = device
        try:
            self.call("cuInit", 0)
            self.call("cuDeviceGet", ctypes.byref(_INT()), device)
        except MeasureError as error:
            raise ToolchainError(f"no CUDA device {device}: {error}") from error
        if self.capability < (8, 0):
            raise ToolchainError(f"CUDA device {device} ({self.name}) is older than compute capability 8.0; use a newer one")
        self._context = _POINTER()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        """Give the context back."""
        self.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a driver function. MeasureError with the driver's name of the failure."""
        code = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            why = text.value.decode() if text.value else f"error {code}"
            raise MeasureError(f"{name} failed on the GPU: {why}")

    @property
    def name(self) -> str:
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, 128, self._device)
        return text.value.decode()

    @property
    def version(self) -> int:
        """The CUDA version that the driver supports, as 1000 * major + 10 * minor."""
        number = _INT()
        self.call("cuDriverGetVersion", ctypes.byref(number))
        return number.value

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, e.g. (9, 0)."""
        return self._attribute(_COMPUTE_MAJOR), self._attribute(_COMPUTE_MINOR)

    def _attribute(self, number: int) -> int:
        value = _INT()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def handle(self, name: str, *arguments: Any) -> Any:
        """Call a function that makes an object and returns it through its first argument."""
        made = _POINTER()
        self.call(name, ctypes.byref(made), *arguments)
        return made

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes, as an address."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), max(size, 1))
        return address.value

    def function(self, module: Any, symbol: str, shared_bytes: int) -> Any:
        """A kernel of a loaded module, allowed to use this much dynamic shared memory."""
        found = self.handle("cuModuleGetFunction", module, symbol.encode())
        if shared_bytes > 48 << 10:
            self.call("cuFuncSetAttribute", found, _MAX_DYNAMIC_SHARED, shared_bytes)
        return found

    def capture(self, stream: Any) -> None:
        """Record what this thread launches on the stream into a graph instead of running it, until cuStreamEndCapture."""
        self.call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL_CAPTURE)

    def elapsed(self, start: Any, end: Any) -> float:
        """Seconds between two recorded events."""
        milliseconds = ctypes.c_float()
        self.call("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return milliseconds.value / 1e3
