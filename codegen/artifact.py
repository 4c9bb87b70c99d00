"""A compiled network: run it, export it as one shared library, load it again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from billhook.ir.errors import BundleError

from .threads import use_threads
from .toolchain import find_compiler
from .tvm_any import relax, tvm


class Artifact:
    """An executable network. `kernels` names its kernels in execution order (empty if it was loaded from a library).

    features: instruction sets that it needs beyond those that every network for its target
    needs. threads: of one inference. They serve the thread that makes this object, which must be the one that runs it.
    """

    def __init__(self, executable: Any, kernels: tuple[str, ...] = (), threads: int = 1, features: tuple[str, ...] = ()) -> None:
        use_threads(threads)
        self.threads, self.features = threads, features
        self._executable = executable
        self.kernels = kernels
        self.machine: Any = relax.VirtualMachine(executable, tvm.cpu())

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs for logical inputs in torch's order."""
        outputs = self.machine["main"](*[_device_tensor(t) for t in tensors])
        return tuple(torch.as_tensor(o.numpy()) for o in outputs)

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        """A call without arguments that runs one inference on these inputs and leaves the outputs on the device: for timing."""
        main, arguments = self.machine["main"], [_device_tensor(t) for t in tensors]
        return lambda: main(*arguments)

    def export(self, path: str | Path) -> None:
        """Write one shared library with code and packed parameters; nothing is left behind if it fails."""
        goal = Path(path)
        beside = goal.with_name(f".{goal.stem}.partial{goal.suffix or '.so'}")
        compiler = find_compiler()
        try:
            beside.touch()
            self._executable.export_library(str(beside), cc=compiler)
            beside.replace(goal)
        except OSError as error:
            raise BundleError(f"cannot write '{goal}': {error.strerror or error}") from error
        except RuntimeError as error:  # what TVM makes of a failing linker
            raise BundleError(f"cannot link '{goal}': {_linker_line(str(error))}") from error
        finally:
            beside.unlink(missing_ok=True)


def load_artifact(path: str | Path) -> Artifact:
    """The network in a library written by `Artifact.export`."""
    if not Path(path).is_file():
        raise BundleError(f"there is no library '{path}'")
    return Artifact(tvm.runtime.load_module(str(path)))


def _linker_line(message: str) -> str:
    """The first line of TVM's message that says what went wrong."""
    lines = [line.strip() for line in message.splitlines() if "error" in line.lower() or "ld:" in line]
    return next((line for line in lines if line != "Compilation error:"), "the linker failed")


def _device_tensor(tensor: torch.Tensor | np.ndarray) -> Any:
    array = tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor
    return tvm.runtime.tensor(np.ascontiguousarray(array))
