"""Building a network for OpenCL: its candidates, its kernels' source, and the checks against the GPU's limits."""

import re
from collections.abc import Mapping

from billhook.codegen.cpu.candidate import Candidate, candidate
from billhook.codegen.gpu.chain import chain
from billhook.codegen.gpu.hardware import Gpu, check_launches, check_memory
from billhook.codegen.gpu.kernel import Kernel, compile_kernel, separate_sources
from billhook.ir.errors import MeasureError
from billhook.ir.network import Kernel as Call
from billhook.ir.network import Network
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .devices import gpu_of, limited
from .program import OpenClProgram

NAME = "opencl"
_LOCAL = re.compile(r"__local (\w+) \w+\[(\d+)\]")
_BYTES = {"float": 4, "int": 4, "uint": 4, "long": 8, "ulong": 8, "char": 1, "uchar": 1, "half": 2, "short": 2, "double": 8, "bool": 1}
_PRODUCTS = ("aten.conv2d.default", "aten.linear.default", "aten.matmul.default", "aten.addmm.default", "aten.convolution.default")
_RANKS, _GROUPS = 3, (256, 64)


def candidates(workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """Statically ranked tiles for products, for two sizes of work-groups; () for tensors that are blocked or of unknown types."""
    if any(t.block or t.dtype not in ("float32", "int64", "int32", "bool") for t in (*workload.inputs, workload.output)):
        return ()
    ranks = _RANKS if any(call.op in _PRODUCTS for call in workload.calls) else 1
    groups = [g for g in _GROUPS if g <= gpu_of(target).group]
    return tuple(candidate(NAME, rank=rank, group=group) for rank in range(ranks) for group in groups)


def compile_candidate(workload: Workload, choice: Candidate, gpu: Gpu, symbol: str) -> Kernel:
    """The kernel of a candidate. MeasureError if there is no way to make it, or it exceeds the GPU's work-groups."""
    if choice.template != NAME:
        raise MeasureError(f"candidate {choice} is not one of OpenCL's; the stored choice is from another version, measure again")
    kernel = compile_kernel(workload, limited(gpu, choice["group"]), symbol, choice["rank"])
    check_launches(kernel.launches, 0, gpu)
    return kernel


def build(network: Network, choices: Mapping[Workload, Candidate], target: Target) -> OpenClProgram:
    """Compile a network whose tensors are all row-major with the chosen candidate of every workload.

    MeasureError naming the kernel if one has no choice, cannot be made, or exceeds a limit of the GPU.
    """
    gpu = gpu_of(target)
    kernels: dict[Workload, Kernel] = {}
    for call in network.kernels:
        if call.workload not in kernels:
            kernels[call.workload] = _compile(call, choices, gpu, f"k{len(kernels)}")
    return assemble(network, kernels, gpu)


def assemble(network: Network, kernels: Mapping[Workload, Kernel], gpu: Gpu) -> OpenClProgram:
    """The program made of compiled kernels, checked against the GPU's limits."""
    sequence = chain(network, kernels)
    sources = separate_sources(kernels.values(), gpu)
    local = max(map(local_bytes, sources.values()), default=0)
    program = OpenClProgram(
        sequence.inputs, sequence.outputs, sequence.launches, sequence.offsets, sequence.arena_bytes, sequence.constants,
        "\n".join(sources.values()), gpu, local,
    )  # fmt: skip
    check_launches(program.launches, local, gpu)
    check_memory(program.buffers(), gpu)
    return program


def local_bytes(source: str) -> int:
    """Local memory that the kernel in a source declares."""
    return sum(_BYTES[kind] * int(count) for kind, count in _LOCAL.findall(source))


def _compile(call: Call, choices: Mapping[Workload, Candidate], gpu: Gpu, symbol: str) -> Kernel:
    if call.workload not in choices:
        raise MeasureError(f"kernel '{call.name}' has no chosen candidate: {call.workload}; measure its workload first")
    try:
        return compile_candidate(call.workload, choices[call.workload], gpu, symbol)
    except MeasureError as error:
        raise MeasureError(f"kernel '{call.name}': {error}") from error
