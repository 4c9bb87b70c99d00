"""Assembling a network from exactly the kernels that were timed.

Every kernel is a TIR function of flat buffers, called by TVM's relax VM in the network's order; packed parameters are constants inside
the library. The pass list is our own: TVM's default pipelines also fuse, and may change under us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.ir.errors import MeasureError
from billhook.ir.grids import on_grid
from billhook.ir.network import Kernel, Network
from billhook.ir.target import Target
from billhook.ir.workload import TensorType, Workload

from . import lower
from .artifact import Artifact
from .cpu.candidate import Candidate
from .cpu.features import BF16_DOT, INT8_DOT
from .cpu.reduced import is_reduced, storage
from .memory_plan import planning_passes
from .tvm_any import relax, tvm


def build(network: Network, choices: Mapping[Workload, Candidate], target: Target) -> Artifact:
    """Compile a network with the chosen candidate of every workload. Inputs and outputs are row-major tensors in torch's order.

    MeasureError if a workload has no choice.
    """
    return Artifact(
        executable(network, choices, target),
        tuple(k.name for k in network.kernels),
        target.threads,
        _features(network),
    )


def _features(network: Network) -> tuple[str, ...]:
    """Instruction sets that the network's kernels ask for by name."""
    bytes_ = any(on_grid(k.workload) for k in network.kernels)
    return tuple(name for name, used in ((BF16_DOT, _reduced(network)), (INT8_DOT, bytes_)) if used)


def executable(network: Network, choices: Mapping[Workload, Candidate], target: Target) -> Any:
    """TVM's executable of a network, which another machine may be meant to run. MeasureError if a workload has no choice."""
    missing = next((k for k in network.kernels if k.workload not in choices), None)
    if missing is not None:
        raise MeasureError(f"kernel '{missing.name}' has no chosen candidate: {missing.workload}; measure its workload first")
    module = network_module(network, choices, target)
    return tvm.compile(module, lower.tvm_target(target, reduced=_reduced(network)), relax_pipeline=_pipeline())


def network_module(network: Network, choices: Mapping[Workload, Candidate], target: Target) -> Any:
    """TVM's module of a network before memory is planned: the kernels and the main function."""
    return _Assembler(network, choices, target).module()


def _reduced(network: Network) -> bool:
    return any(is_reduced(k.workload) for k in network.kernels)


def _pipeline() -> Any:
    t = relax.transform
    passes = [
        *planning_passes(),
        t.KillAfterLastUse(),
        t.LowerRuntimeBuiltin(),
        t.ComputePrimValue(),
        t.VMShapeLower(),
        t.AttachGlobalSymbol(),
    ]
    return tvm.transform.Sequential(passes)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in the relax function, and its logical type."""

    variable: Any
    type: TensorType


class _Assembler:
    """Emits one relax function: flat views of the inputs, a call per kernel, logical views of the outputs."""

    def __init__(self, network: Network, choices: Mapping[Workload, Candidate], target: Target) -> None:
        self._network, self._choices, self._target = network, choices, target
        self._builder: Any = relax.BlockBuilder()
        self._functions: dict[tuple[Workload, Candidate], Any] = {}
        self._constants: dict[tuple[str, str], Any] = {}
        self._values: dict[str, _Value] = {}

    def module(self) -> Any:
        """The IRModule with the kernels and the main function."""
        network, builder = self._network, self._builder
        inputs = [relax.Var(f"input{i}", relax.TensorType(t.shape, t.dtype)) for i, (_, t) in enumerate(network.inputs)]
        with builder.function("main", inputs):
            for variable, (name, given) in zip(inputs, network.inputs, strict=True):
                self._values[name] = _Value(self._view(variable, (given.elements,)), given)
            for kernel in network.kernels:
                self._values[kernel.output] = _Value(self._call(kernel), kernel.workload.output)
            outputs = [self._output(name) for name in network.outputs]
            builder.emit_func_output(relax.Tuple(outputs))
        return builder.get()

    def _view(self, variable: Any, shape: tuple[int, ...]) -> Any:
        return self._builder.emit(relax.op.reshape(variable, shape))

    def _output(self, name: str) -> Any:
        value = self._values[name]
        if value.type.block:
            raise MeasureError(f"network output '{name}' is channel-blocked; the partitioner must end with billhook.layout")
        return self._view(value.variable, value.type.shape)

    def _call(self, kernel: Kernel) -> Any:
        workload = kernel.workload
        candidate = self._choices[workload]
        arguments = [self._argument(kernel, candidate, i) for i in range(len(kernel.inputs))]
        out = workload.output
        shape = lower.buffer_shape(out, candidate)
        result = relax.TensorType((out.elements,) if shape is None else shape, storage(out.dtype))
        value = self._builder.emit(relax.call_tir(self._function(workload, candidate), arguments, result))
        return value if shape is None else self._view(value, (out.elements,))

    def _function(self, workload: Workload, candidate: Candidate) -> Any:
        """The global variable of a kernel's function, which all equal kernels share."""
        key = workload, candidate
        if key not in self._functions:
            name = f"{candidate.template}_{len(self._functions)}"
            function = lower.lower(workload, candidate, self._target).with_attr("global_symbol", name)
            self._functions[key] = self._builder.add_func(function, name)
        return self._functions[key]

    def _argument(self, kernel: Kernel, candidate: Candidate, index: int) -> Any:
        name, workload = kernel.inputs[index], kernel.workload
        shape = lower.buffer_shape(workload.inputs[index], candidate)
        if name in self._values:
            value = self._values[name].variable
            return value if shape is None else self._view(value, shape)
        key = name, f"{workload.key}{candidate}{index}"
        if key not in self._constants:
            array = self._network.constants[name].detach().numpy()
            packed = lower.pack(workload, candidate, self._target, index, array)
            value = np.asarray(packed if shape is None else packed.reshape(shape), order="C")
            self._constants[key] = relax.const(value, str(value.dtype))  # else 64-bit numbers become 32-bit ones
        return self._constants[key]
