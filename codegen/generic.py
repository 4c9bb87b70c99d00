"""Kernels for whatever has no template: TVM's own lowering of the ATen calls, with a tuned schedule where there is one.

A schedule found for one width also applies to others (its splits are predicated): see metaschedule.py.
"""

import json
from functools import lru_cache
from typing import Any

import numpy as np

from billhook.ir.errors import MeasureError
from billhook.ir.grouped_matmul import NAME as GROUPED
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .cpu.candidate import Candidate
from .importer import import_workload, single_function
from .tvm_any import tvm

NAME = "generic"


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """The untuned kernel, or () if a tensor is not row-major float32 (or integer)."""
    types = (*workload.inputs, workload.output)
    covered = all(not t.block and t.dtype in ("float32", "int64", "int32", "bool") for t in types)
    return (Candidate(NAME),) if covered and all(c.op.startswith("aten.") or c.op == GROUPED for c in workload.calls) else ()


def pack(_workload: Workload, _choice: Candidate, _target: Target, _index: int, array: np.ndarray) -> np.ndarray:
    """Parameters stay in torch's order."""
    return np.ascontiguousarray(array).reshape(-1)


def lower(workload: Workload, choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of row-major tensors in their logical shapes."""
    function = unscheduled(workload, target)
    if not choice.schedule:
        return function
    schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": function}))
    try:
        tvm.s_tir.schedule.Trace.apply_json_to_schedule(json.loads(choice.schedule), schedule)
    except (RuntimeError, ValueError, IndexError) as error:
        raise MeasureError(f"the tuned schedule does not fit {workload.anchor.op}: {str(error).strip().splitlines()[-1]}") from error
    return schedule.mod["main"].with_attr("global_symbol", "kernel")


@lru_cache(maxsize=256)
def unscheduled(workload: Workload, target: Target) -> Any:
    """The kernel before scheduling: what the tuner starts from."""
    given = {"mcpu": target.mcpu, "mtriple": target.triple}
    backend = tvm.target.Target({"kind": target.kind, "num-cores": target.threads, **{k: v for k, v in given.items() if v}})
    function = single_function(import_workload(workload), workload, backend)
    return _without_copies(function).with_attr("global_symbol", "kernel").with_attr("tirx.noalias", True)


def _without_copies(function: Any) -> Any:
    """Read through reshapes, transposes and constants instead of computing them first: the tuner refuses kernels with such stages."""
    schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        value = getattr(schedule.get(block).body, "value", None)
        if isinstance(value, tvm.ir.TensorLoad | tvm.ir.Constant):
            try:
                schedule.compute_inline(block)
            except tvm.s_tir.ScheduleError:  # the last stage, or an index that cannot be inverted: stays as it is
                continue
    return schedule.mod["main"]
