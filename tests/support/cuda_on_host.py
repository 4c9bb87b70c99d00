"""Running a CUDA program without a GPU: its generated source, compiled for the host, block after block with fibers for threads.

The launch sequence, the memory plan and the arguments are the program's own, so what runs here is what a GPU would be told to do.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import torch

from billhook.codegen.cuda.program import CudaProgram
from billhook.codegen.gpu.launch import Launch
from billhook.codegen.toolchain import find_compiler
from billhook.ir.memory import ALIGNMENT

_HEADER = Path(__file__).with_suffix(".h")
_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\) \{')


class HostGpu:
    """The program's kernels as a host library in `folder`."""

    def __init__(self, program: CudaProgram, source: str, folder: Path) -> None:
        self._program = program
        text, library = folder / "kernels.cc", folder / "kernels.so"
        text.write_text(_host_source(source), encoding="utf-8")
        command = [find_compiler(), "-x", "c++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-o", str(library), str(text), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self._library = ctypes.CDLL(str(library))

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The program's outputs. Memory starts as NaN, so that reading what nobody wrote shows."""
        program = self._program
        arena = torch.full((program.arena_bytes + ALIGNMENT,), 0xFF, dtype=torch.uint8)
        held = {name: c.contiguous() for name, c in program.constants.items()}
        held |= {name: x.contiguous() for (name, _), x in zip(program.inputs, inputs, strict=True)}
        addresses = {name: t.data_ptr() for name, t in held.items()}
        addresses |= {name: arena.data_ptr() + offset for name, offset in program.offsets.items()}
        for launch in program.launches:
            self._launch(launch, addresses)
        return tuple(self._output(name, kind.shape, kind.dtype, held, arena) for name, kind in program.outputs)

    def _launch(self, launch: Launch, addresses: dict[str, int]) -> None:
        function = getattr(self._library, f"host_{launch.symbol}")
        pointers = (ctypes.c_void_p * len(launch.arguments))(*(addresses[a] for a in launch.arguments))
        function(pointers, *(ctypes.c_uint(v) for v in (*launch.grid, *launch.block)))

    def _output(self, name: str, shape: tuple[int, ...], dtype: str, held: dict[str, torch.Tensor], arena: torch.Tensor) -> torch.Tensor:
        if name in held:
            return held[name].reshape(shape)
        kind: torch.dtype = getattr(torch, dtype)
        start = self._program.offsets[name]
        return arena[start : start + torch.Size(shape).numel() * kind.itemsize].clone().view(kind).reshape(shape)


def _host_source(source: str) -> str:
    """The kernels behind our header instead of TVM's preamble, and for each a function that runs all its blocks."""
    kernels = source[source.index('extern "C" __global__') :]
    kernels = kernels.replace("__shared__ alignas(64)", "alignas(64) static")
    parts = [f'#include "{_HEADER}"', kernels]
    for symbol, parameters in _KERNEL.findall(kernels):
        types = [p.replace("__restrict__", "").rsplit(" ", 1)[0].strip() for p in parameters.split(",")]
        arguments = ", ".join(f"({t})args[{i}]" for i, t in enumerate(types))
        grid, block = "unsigned gx, unsigned gy, unsigned gz", "unsigned bx, unsigned by, unsigned bz"
        loops = "for (unsigned z = 0; z < gz; ++z) for (unsigned y = 0; y < gy; ++y) for (unsigned x = 0; x < gx; ++x)"
        run = f"{{ blockIdx = {{x, y, z}}; host::block({{bx, by, bz}}, [&] {{ {symbol}({arguments}); }}); }}"
        parts.append(f'extern "C" void host_{symbol}(void** args, {grid}, {block}) {{ {loops} {run} }}')
    return "\n".join(parts)
