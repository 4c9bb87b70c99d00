"""A network compiled for arm64 on another machine: exported by the cross compiler, run under emulation."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from billhook.codegen.bundle_runtime import add_runtime
from billhook.ir.errors import BundleError

from .emulate import build_arm_runner, run_emulated
from .toolchain import arm_runtime, cross_compiler

Outputs = tuple[tuple[tuple[int, ...], str], ...]


class ArmArtifact:
    """An executable network for arm64. outputs: shape and element type of each. features: instruction sets it asks for by name."""

    def __init__(self, executable: Any, kernels: tuple[str, ...], threads: int, outputs: Outputs, features: tuple[str, ...] = ()) -> None:
        self._executable, self._outputs = executable, outputs
        self.kernels, self.threads, self.features = kernels, threads, features

    def export(self, path: Path) -> None:
        """Write one arm64 shared library. ToolchainError without a cross compiler, BundleError if it cannot be linked."""
        beside = path.with_name(f".{path.stem}.partial.so")
        compiler = cross_compiler()
        try:
            self._executable.export_library(str(beside), cc=compiler)
            beside.replace(path)
        except RuntimeError as error:  # what TVM makes of a failing linker
            raise BundleError(f"cannot link '{path}' for arm64 with {compiler}: {str(error).strip().splitlines()[-1]}") from error
        finally:
            beside.unlink(missing_ok=True)

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs for inputs in torch's order, computed by the C++ runner under qemu."""
        with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
            bundle = Path(folder)
            (bundle / "lib").mkdir()
            self.export(bundle / "lib" / "model.so")
            add_runtime(bundle, "aarch64", arm_runtime())
            loaded = EmulatedBundle(bundle, self._outputs, self.kernels, self.threads)
            return loaded.run(*tensors)

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        return lambda: self.run(*tensors)


class EmulatedBundle:
    """The network of an arm64 bundle, run by its own C++ runner under qemu."""

    def __init__(self, bundle: Path, outputs: Outputs, kernels: tuple[str, ...] = (), threads: int = 1) -> None:
        self._bundle, self._outputs = bundle, outputs
        self.kernels, self.threads = kernels, threads

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs for inputs in torch's order."""
        arrays = [t.detach().cpu().numpy() if isinstance(t, torch.Tensor) else t for t in tensors]
        with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
            program = build_arm_runner(self._bundle, Path(folder))
            found = run_emulated(self._bundle, program, arrays, self._outputs)
        return tuple(torch.as_tensor(array) for array in found)

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        return lambda: self.run(*tensors)
