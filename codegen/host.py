"""Which Target this machine is."""

import platform
from functools import cache
from pathlib import Path

from billhook.ir.target import Target


def host_target(threads: int = 1) -> Target:
    """The CPU that this process runs on, as LLVM and the operating system name it."""
    return cpu_target(_llvm_cpu(), cpu_flags(), platform.machine(), threads)


def cpu_target(mcpu: str, flags: frozenset[str], machine: str, threads: int) -> Target:
    """The Target of a CPU: vector widths follow from its instruction sets.

    Zen 4 and Zen 5's small cores split a 512-bit multiply-add in two, so 256-bit vectors reach the same peak; Intel's do not.
    """
    if machine in ("aarch64", "arm64"):
        return Target("llvm", mcpu, 4, 4, 32, threads)
    if "avx512f" in flags:
        return Target("llvm", mcpu, 16, 8 if mcpu.startswith("znver4") else 16, 32, threads)
    if "avx2" in flags and "fma" in flags:
        return Target("llvm", mcpu, 8, 8, 16, threads)
    return Target("llvm", mcpu, 4, 4, 16, threads)


@cache
def _llvm_cpu() -> str:
    import tvm  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import tvm_ffi

    name = tvm_ffi.get_global_func("target.llvm_get_system_cpu")()
    return str(name)


def cpu_flags() -> frozenset[str]:
    """Features of this processor as Linux lists them; empty where it does not say."""
    try:
        return flags_in(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        return frozenset()


def flags_in(cpuinfo: str) -> frozenset[str]:
    """Features that the text of /proc/cpuinfo lists for its first processor."""
    return frozenset(next((line.split(":", 1)[1].split() for line in cpuinfo.splitlines() if line.startswith(("flags", "Features"))), ()))
