"""Which OpenCL GPU a target means: the one that this machine has, or a named one by its published limits."""

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from billhook.codegen.gpu.hardware import Gpu
from billhook.ir.errors import OptionError, ToolchainError
from billhook.ir.target import Target

LOCAL = "local"
_BUFFER = 128 << 20  # bytes: the largest buffer that OpenCL's full profile guarantees
_LOCAL = 32 << 10  # bytes of local memory that it guarantees

# Work-group limits and compute units as clinfo printed them on such devices (reports in public issue trackers: 96boards-hikey/linux 59,
# ARM-software/ComputeLibrary 999, xmrig/xmrig 2383). No report of the work-group limit of Adreno 650 was found: it gets the cautious 256.
# Buffer and local memory are what the standard guarantees.
NAMED = {
    "mali-g52": Gpu("Mali-G52", "opencl", 2, group=384, local_bytes=_LOCAL, warp=1, buffer_bytes=_BUFFER),
    "mali-g71": Gpu("Mali-G71", "opencl", 8, group=384, local_bytes=_LOCAL, warp=1, buffer_bytes=_BUFFER),
    "adreno-650": Gpu("Adreno 650", "opencl", 3, group=256, local_bytes=_LOCAL, warp=1, buffer_bytes=_BUFFER),
    "any": Gpu("any OpenCL GPU", "opencl", 4, group=256, local_bytes=_LOCAL, warp=1, buffer_bytes=_BUFFER),
}
_MOST = 1024  # work-items of a group: CPU implementations allow more, which no schedule wants


def opencl() -> Any:
    """The module pyopencl. ToolchainError if it is not installed."""
    try:
        return import_module("pyopencl")
    except ImportError as error:
        raise ToolchainError("pyopencl is not installed, which OpenCL needs; pip install 'billhook[opencl]'") from error


def local_device() -> Any:
    """The first OpenCL GPU of this machine, else its first OpenCL device (PoCL). ToolchainError if there is none."""
    cl = opencl()
    try:
        found = [device for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.Error as error:
        raise ToolchainError(f"no OpenCL platform ({error}); install a driver (Debian: apt-get install pocl-opencl-icd)") from error
    if not found:
        raise ToolchainError("no OpenCL device; install a driver (Debian: apt-get install pocl-opencl-icd)")
    return next((d for d in found if d.type & cl.device_type.GPU), found[0])


def is_processor(device: Any) -> bool:
    """Whether the device is a CPU (PoCL), whose times say nothing about a GPU."""
    return not device.type & opencl().device_type.GPU


@cache
def _local_gpu() -> Gpu:
    device = local_device()
    return Gpu(
        str(device.name).strip(), "opencl", int(device.max_compute_units), min(int(device.max_work_group_size), _MOST),
        int(device.local_mem_size), 1, buffer_bytes=int(device.max_mem_alloc_size), memory_bytes=int(device.global_mem_size),
    )  # fmt: skip


def gpu_of(target: Target) -> Gpu:
    """The GPU of an OpenCL target. OptionError if its name is unknown, ToolchainError if it is local and there is none."""
    if target.mcpu == LOCAL:
        return _local_gpu()
    if target.mcpu in NAMED:
        return NAMED[target.mcpu]
    raise OptionError(f"OpenCL device '{target.mcpu}' is not known; use {LOCAL}, {', '.join(NAMED)}")


def limited(gpu: Gpu, group: int) -> Gpu:
    """The GPU with at most `group` work-items per work-group."""
    return replace(gpu, group=min(group, gpu.group))


def opencl_target(name: str = LOCAL) -> Target:
    """The Target of an OpenCL GPU. Widths go in steps of 8: half of the narrowest tile's rows."""
    return Target(kind="opencl", mcpu=name, lanes=1, fine_lanes=8, registers=64)
