"""Tuning what has no template: TVM's MetaSchedule under a trial budget, and replay of what it finds on other widths.

Decisions of a schedule found for one width stay legal on another (its splits are predicated), so one tuned anchor serves a whole range of
pruned widths. Builder and runner are separate processes, so a bad candidate cannot take this one with it.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

from billhook.ir.errors import MeasureError
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from . import generic
from .cpu.candidate import Candidate
from .lower import tvm_target
from .tvm_any import tvm

_UNUSED_INTRINSICS = ("cuda", "rocm", "hexagon", "riscv_cpu", "arm_cpu")


def tune(workload: Workload, target: Target, trials: int, work_dir: Path, seed: int = 1) -> Candidate:
    """The generic candidate with the fastest schedule of `trials` random ones; about half a second a trial.

    MetaSchedule's records are kept under `work_dir`, in a folder of the target's own: its lookup ignores targets.
    MeasureError if no trial produced a schedule, or MetaSchedule cannot draw one (a sum over nothing, as a head of width 0 has).
    """
    skip_unused_intrinsics()
    from tvm.s_tir import meta_schedule

    ms: Any = meta_schedule
    folder = work_dir / str(target).replace(":", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    function = generic.unscheduled(workload, target)
    try:
        database = ms.tune_tir(
            mod=tvm.IRModule({"main": function.with_attr("global_symbol", "main")}),
            target=tvm_target(target),
            work_dir=str(folder),
            max_trials_global=trials,
            num_trials_per_iter=min(trials, 16),
            cost_model="random",
            strategy="replay-trace",
            seed=seed,
            builder=ms.builder.LocalBuilder(max_workers=1, timeout_sec=60, initializer=skip_unused_intrinsics),
            runner=ms.runner.LocalRunner(timeout_sec=60, evaluator_config=ms.runner.EvaluatorConfig(number=1, repeat=1, min_repeat_ms=10)),
        )
    except (ValueError, TypeError, RuntimeError) as error:  # TVM's errors are subclasses of these
        raise MeasureError(f"TVM cannot tune {workload.anchor.op}: {str(error).strip().splitlines()[0]}") from error
    workload_module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    best = _best_record(database, workload_module)
    if best is None:
        raise MeasureError(f"none of {trials} trials made a schedule for {workload.anchor.op}; raise the trial budget")
    return Candidate(generic.NAME, schedule=json.dumps(best.trace.as_json(), separators=(",", ":"), default=_number))


def replay(tuned: Candidate, workload: Workload, target: Target) -> Candidate | None:
    """The tuned candidate for another workload (other widths, the same calls), or None if its schedule does not apply there."""
    try:
        generic.lower(workload, tuned, target)
    except MeasureError:
        return None
    return tuned


def _number(value: Any) -> int | float | str:
    """TVM's literals as JSON numbers."""
    if isinstance(value, tvm.tirx.IntImm):
        return int(value.value)
    if isinstance(value, tvm.tirx.FloatImm):
        return float(value.value)
    return str(value)


def _best_record(database: Any, module: Any) -> Any:
    if not database.has_workload(module):
        return None
    records = database.get_top_k(database.commit_workload(module), 1)
    return records[0] if records else None


def skip_unused_intrinsics() -> None:
    """Keep TVM from parsing the tensor intrinsics of other devices, which takes 27 CPU seconds in every process that tunes."""
    for name in _UNUSED_INTRINSICS:
        module = f"tvm.s_tir.tensor_intrin.{name}"
        sys.modules.setdefault(module, types.ModuleType(module))
