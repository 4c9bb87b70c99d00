"""TVM's threads: as many as an inference is given, each on a core of its own."""

import os
import sys

from .tvm_any import tvm

_ONE_CORE_PER_THREAD = -2  # TVM's name for it is kSpecifyOneCorePerThread


def use_threads(count: int) -> None:
    """Let kernels that this thread runs from now on share `count` cores, which must be fewer than this process may use, or all.

    TVM would take half of the cores that the system reports. Kernels for one thread never ask for others, so for them nothing is set.
    """
    if count > 1:
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))
        configure = tvm.get_global_func("runtime.config_threadpool")
        configure(_ONE_CORE_PER_THREAD, count, [str(core) for core in cores])
