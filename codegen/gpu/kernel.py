"""One workload as device functions and launches: scheduled, lowered and split by TVM; what needs only parameters is evaluated here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import tvm
from billhook.ir.errors import MeasureError
from billhook.ir.workload import Workload

from .hardware import Gpu
from .launch import Launch
from .schedule import schedule
from .stages import Stage, stages_of
from .tile import Tile, ranked

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1, "int8": 1, "uint8": 1, "float64": 8}
_AXES = {"x": 0, "y": 1, "z": 2}
_SHARED = "tirx.use_dyn_shared_memory"


@dataclass(frozen=True)
class Kernel:
    """A workload's device functions, and how they are launched.

    Arguments of `launches` are "x<i>" (inputs), "t<i>" (results of stages) and "w<i>.<j>" (scratch); `sizes` gives the bytes of all
    but the inputs; `folded`: stages that depend on parameters alone, in order; `output`: the value that the workload returns.
    """

    devices: tuple[Any, ...]
    launches: tuple[Launch, ...]
    sizes: Mapping[str, int]
    folded: tuple[Stage, ...]
    literals: tuple[tuple[str, np.ndarray], ...]
    output: str


def compile_kernel(workload: Workload, gpu: Gpu, symbol: str, rank: int = 0) -> Kernel:
    """Lower a workload to device functions, whose names begin with `symbol`.

    rank: which of the statically ranked tiles products take. MeasureError if there is no way to make this kernel.
    """
    backend = tvm_target(gpu)
    stages = stages_of(workload, lambda rows, columns: _tile(rows, columns, gpu, rank), backend)
    constant = stages.constant(workload)
    devices: list[Any] = []
    launches: list[Launch] = []
    sizes = {s.output: _size(s.shape, s.dtype) for s in stages.stages}
    for number, stage in enumerate(s for s in stages.stages if s.output not in constant):
        functions = _split(schedule(stage.function, backend), f"{symbol}_{number}", backend)
        devices.append(functions.device)
        for name, elements in functions.scratch.items():
            sizes[f"w{number}.{name}"] = elements
        values = dict(zip(functions.parameters, (*stage.inputs, stage.output), strict=True))
        launches += [_renamed(n, values, number) for n in functions.launches]
    folded = tuple(s for s in stages.stages if s.output in constant)
    return Kernel(tuple(devices), tuple(launches), sizes, folded, stages.literals, stages.output)


def separate_sources(kernels: Iterable[Kernel], gpu: Gpu) -> dict[str, str]:
    """The source of each device function by its name: TVM's code for several together declares all of them before each."""
    build: Any = __import__("tvm.tirx.build", fromlist=["codegen_build"])
    found = [(v.name_hint, f) for kernel in kernels for device in kernel.devices for v, f in device.functions.items()]
    return {name: str(build.codegen_build(tvm.IRModule({name: f}), tvm_target(gpu)).inspect_source()) for name, f in found}


def device_source(kernels: Iterable[Kernel], gpu: Gpu) -> str:
    """The device functions of all kernels in the GPU's language, as one translation unit."""
    functions = {v.name_hint: f for kernel in kernels for device in kernel.devices for v, f in device.functions.items()}
    build: Any = __import__("tvm.tirx.build", fromlist=["codegen_build"])
    return str(build.codegen_build(tvm.IRModule(functions), tvm_target(gpu)).inspect_source())


def evaluate(stages: Sequence[Stage], values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Results of parameter-only stages, computed on the host from parameters and literals by name."""
    known = dict(values)
    for stage in stages:
        module = tvm.IRModule({"main": stage.function.with_attr("global_symbol", "main")})
        function = tvm.tirx.build(module, target=tvm.target.Target("llvm"))["main"]
        result = tvm.runtime.empty(stage.shape, stage.dtype)
        function(*(_tensor(known[name], p) for name, p in zip(stage.inputs, stage.function.params, strict=False)), result)
        known[stage.output] = result.numpy()
    return known


def tvm_target(gpu: Gpu) -> Any:
    """TVM's target for a GPU, with the limits that its schedule rules ask for."""
    limits = {"max_shared_memory_per_block": gpu.local_bytes, "thread_warp_size": gpu.warp, "max_num_threads": gpu.group}
    if gpu.kind != "webgpu":  # the only kind that has no such attribute
        limits["max_threads_per_block"] = gpu.group
    return tvm.target.Target({"kind": gpu.kind, **({"arch": gpu.architecture} if gpu.architecture else {}), **limits}, host="llvm")


@dataclass(frozen=True)
class _Functions:
    """A lowered function: its device module, its launches and scratch buffers (bytes) in terms of its own variables' names."""

    device: Any
    parameters: tuple[str, ...]
    launches: tuple[Launch, ...]
    scratch: Mapping[str, int]


def _split(function: Any, symbol: str, backend: Any) -> _Functions:
    """Lower a scheduled function to device code, and read its launches from the host code that TVM would run."""
    module = tvm.IRModule({symbol: function.with_attr("global_symbol", symbol).with_attr("tirx.noalias", True)})
    module = tvm.tirx.transform.BindTarget(backend)(module)
    kept = _AfterSplit()
    pipeline, _, finish = tvm.tirx.get_default_tir_pipeline(backend)
    instruments = [tvm.ir.instrument.pass_instrument(kept.instrument())()]
    with tvm.transform.PassContext(instruments=instruments, config={"tirx.disable_cse_tir": True}):  # it leaves unused variables behind
        lowered = pipeline(module)
    build: Any = __import__("tvm.tirx.build", fromlist=["split_host_device_mods"])
    _, devices = build.split_host_device_mods(lowered)
    device = finish()(next(iter(devices.values())))
    host = kept.module[symbol]
    statements = list(host.body.seq) if hasattr(host.body, "seq") else [host.body]
    launches: list[Launch] = []
    scratch: dict[str, int] = {}
    for statement in statements:
        if isinstance(statement, tvm.tirx.AllocBuffer):
            buffer = statement.buffer
            scratch[buffer.name] = _size(tuple(int(s) for s in buffer.shape), str(buffer.dtype))
        elif isinstance(statement, tvm.tirx.Evaluate) and getattr(statement.value.op, "name", "") == "tirx.call_ffi_kernel":
            launches.append(_launch(statement.value))
        elif not isinstance(statement, tvm.tirx.DeclBuffer):
            raise MeasureError(f"the host side of kernel {symbol} has more than launches: {str(statement).splitlines()[0]}")
    return _Functions(device, tuple(p.name for p in host.params), tuple(launches), scratch)


class _AfterSplit:
    """Keeps the module as it is when host and device code have been split, before launches are hidden behind TVM's calling convention."""

    module: Any = None

    def instrument(self) -> type:
        """The class for TVM's instrument decorator."""
        keeper = self

        class Instrument:
            def run_after_pass(self, module: Any, info: Any) -> None:
                if str(info.name).endswith("SplitHostDevice"):
                    keeper.module = module

        return Instrument


def _launch(call: Any) -> Launch:
    """A launch from TVM's call: symbol, addresses, then the extents that the launch parameters name."""
    names = [str(p) for p in call.attrs.launch_params]
    values = list(call.args[1:])
    addresses, extents = values[: len(values) - len(names)], values[len(values) - len(names) :]
    grid, block, shared = [1, 1, 1], [1, 1, 1], 0
    for name, extent in zip(names, extents, strict=True):
        if name == _SHARED:
            shared = int(extent)
        else:
            (grid if name.startswith("blockIdx") else block)[_AXES[name[-1]]] = int(extent)
    arguments = tuple(str(a.args[0].name) for a in addresses)
    return Launch(str(call.args[0].value), (grid[0], grid[1], grid[2]), (block[0], block[1], block[2]), arguments, shared)


def _renamed(launch: Launch, values: Mapping[str, str], stage: int) -> Launch:
    arguments = tuple(values.get(a, f"w{stage}.{a}") for a in launch.arguments)
    return Launch(launch.symbol, launch.grid, launch.block, arguments, launch.shared_bytes)


def _tile(rows: int, columns: int, gpu: Gpu, rank: int) -> Tile:
    tiles = ranked(rows, columns, gpu)
    return tiles[min(rank, len(tiles) - 1)]


def _size(shape: tuple[int, ...], dtype: str) -> int:
    total = _BYTES[dtype]
    for size in shape:
        total *= size
    return total


def _tensor(array: np.ndarray, parameter: Any) -> Any:
    """The array in the shape in which the function takes it: views differ in nothing else."""
    return tvm.runtime.tensor(np.ascontiguousarray(array.reshape(tuple(int(s) for s in parameter.shape))))
