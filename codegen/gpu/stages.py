"""From a workload to the functions that make it: legalised and fused by TVM's relax, with convolutions and products as GEMMs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.importer import import_workload
from billhook.codegen.tvm_any import relax, tvm
from billhook.ir.errors import MeasureError
from billhook.ir.workload import Workload

from .gemm import Chooser, legalisations

_VIEWS = ("relax.reshape", "relax.flatten", "relax.expand_dims", "relax.squeeze")  # change a tensor's shape, not its elements


@dataclass(frozen=True, slots=True)
class Stage:
    """One function of row-major tensors: it reads `inputs` and writes `output`, which has `shape` and `dtype`."""

    name: str
    function: Any
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Stages:
    """A workload's functions in order. Its inputs are called "x0", "x1", ...; `output` is the value that it returns."""

    stages: tuple[Stage, ...]
    output: str
    literals: tuple[tuple[str, np.ndarray], ...] = ()  # tensors that the calls themselves contain

    def constant(self, workload: Workload) -> frozenset[str]:
        """Values that depend on the workload's parameters alone."""
        known = {f"x{i}" for i, role in enumerate(workload.roles) if role == "parameter"} | {name for name, _ in self.literals}
        for stage in self.stages:
            if all(name in known for name in stage.inputs):
                known.add(stage.output)
        return frozenset(known)


def stages_of(workload: Workload, choose: Chooser, target: Any) -> Stages:
    """The workload's functions, unscheduled. MeasureError if torch or TVM cannot express it."""
    module = import_workload(workload)
    passes = relax.transform
    with target:
        module = passes.LegalizeOps(dict(legalisations(choose)), skip_ops=list(_VIEWS))(module)
        for step in (passes.AnnotateTIROpPattern, passes.FoldConstant, passes.FuseOps, passes.FuseTIR, passes.DeadCodeElimination):
            module = step()(module)
    return _Reader(module, workload).read()


class _Reader:
    """Reads the relax main function: one stage per call, views followed to the tensor that they show."""

    def __init__(self, module: Any, workload: Workload) -> None:
        self._module, self._workload = module, workload
        self._names: dict[Any, str] = {v: f"x{i}" for i, v in enumerate(module["main"].params)}
        self._stages: list[Stage] = []
        self._literals: list[tuple[str, np.ndarray]] = []

    def read(self) -> Stages:
        body = self._module["main"].body
        for block in body.blocks:
            for binding in block.bindings:
                self._names[binding.var] = self._value(binding.value)
        return Stages(tuple(self._stages), self._value(body.body), tuple(self._literals))

    def _value(self, value: Any) -> str:
        if isinstance(value, tvm.ir.Var):
            return self._names[value]
        if isinstance(value, tvm.ir.Constant):
            self._literals.append((f"c{len(self._literals)}", value.value.numpy()))
            return self._literals[-1][0]
        if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op):
            if value.op.name in _VIEWS:
                return self._value(value.args[0])
            if value.op.name == "relax.call_tir":
                return self._call(value)
        raise MeasureError(f"no GPU kernel for {self._workload.anchor.op}: TVM leaves '{str(value).splitlines()[0]}'; replace it")

    def _call(self, call: Any) -> str:
        inputs = tuple(self._value(a) for a in call.args[1].fields)
        output, result = f"t{len(self._stages)}", call.ty_args[0]
        shape = tuple(int(s) for s in result.shape)
        self._stages.append(Stage(call.args[0].name_hint, self._module[call.args[0]], inputs, output, shape, str(result.dtype)))
        return output
