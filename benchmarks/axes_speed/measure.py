"""CPU seconds and peak memory of both tools on one network, each in a child of its own."""

import ctypes
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from billhook.ir.program import Program

from .networks import Made

BATCHES = 8  # of calls; the fastest one counts, because other guests of the machine only ever add time
BATCH = 0.25  # seconds of calls in one, over which a time is averaged: the clock may advance in steps of some milliseconds
PEER_STAGES = ("peer_build_s", "peer_groups_s", "peer_step_s")
Note = Callable[[dict[str, Any]], None]


def ours(build: Callable[[], Made], note: Note) -> None:
    """Capture, analysis (all passes up to the axes) and the cut of a half of every axis (every second index)."""
    from billhook.ir.capture import capture
    from billhook.ir.plan import make_plan
    from billhook.passes.cut import cut_graph, cut_state

    _warm_up(lambda m, x: cut_graph(p := _analysed(capture(m, (x,))), make_plan(p, {})))
    model, x = build()
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    captured, row["capture_s"] = _timed(lambda: capture(model, (x,)))
    row["nodes"] = sum(1 for _ in captured.nodes())
    note(row)
    before = _reset_peak()
    program, row["analysis_s"] = _timed(lambda: _analysed(captured))
    plan = make_plan(program, {axis.name: range(0, axis.size, 2) for axis in program.axes if axis.prunable})
    row["axes"] = len(program.axes)
    _, row["cut_s"] = _timed(lambda: cut_graph(program, plan))
    row["memory_bytes"] = _peak() - before
    note(row)
    row["analysis_s"] = _least(row["analysis_s"], lambda: _analysed(captured))
    row["cut_s"] = _least(row["cut_s"], lambda: cut_graph(program, plan))
    row["copy_s"] = _least(row["cut_s"], lambda: cut_state(program, plan))  # the part of the cut that only copies weights
    note(row)


def _analysed(program: Program) -> Program:
    from billhook.passes.analyse import ANALYSIS

    return functools.reduce(lambda before, named: named[1](before), ANALYSIS, program)


def theirs(build: Callable[[], Made], note: Note) -> None:
    """Torch-Pruning: its graph, one enumeration of all groups, and one step of its magnitude pruner at a ratio of a half."""
    row: dict[str, Any] = {}
    _step(build, row, note)
    batches, calls = _batches(_total(row))
    means = [_mean_step(build, calls) for _ in range(batches)]
    row.update(min(means, key=_total))
    note({**row, "peer_s": _total(row)})


def _mean_step(build: Callable[[], Made], calls: int) -> dict[str, float]:
    """Seconds of each stage in one batch."""
    runs: list[dict[str, Any]] = [{} for _ in range(calls)]
    for run in runs:
        _step(build, run, lambda _: None)
    return {name: sum(run[name] for run in runs) / calls for name in PEER_STAGES}


def _step(build: Callable[[], Made], row: dict[str, Any], note: Note) -> None:
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    model, x = build()
    last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    before = _reset_peak()
    graph, row["peer_build_s"] = _timed(lambda: cast(Any, tp.DependencyGraph()).build_dependency(model, example_inputs=x))
    note(row)
    groups, row["peer_groups_s"] = _timed(
        lambda: list(graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]))
    )
    row["peer_groups"] = len(groups)
    note(row)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    made, row["peer_constructor_s"] = _timed(lambda: tp.pruner.BasePruner(model, x, importance, pruning_ratio=0.5, ignored_layers=[last]))
    _, row["peer_step_s"] = _timed(made.step)
    row["peer_memory_bytes"] = _peak() - before


def _total(row: dict[str, Any]) -> float:
    return sum(row[name] for name in PEER_STAGES)


def _warm_up(use: Callable[[nn.Module, torch.Tensor], Any]) -> None:
    """The first use of a library imports and registers things that no later use pays for."""
    use(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval(), torch.randn(2, 3, 4, 4))


def _batches(once: float) -> tuple[int, int]:
    """How many batches of how many calls to time of a call that took about so long: what takes long is timed once more."""
    return (BATCHES, max(1, round(BATCH / max(once, 1e-3)))) if once < BATCHES * BATCH else (1, 1)


def _least(once: float, call: Callable[[], Any]) -> float:
    """CPU seconds of a call that took about `once` before: the mean of the fastest batch."""
    batches, calls = _batches(once)
    return min(_mean(calls, call) for _ in range(batches))


def _mean(calls: int, call: Callable[[], Any]) -> float:
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def _reset_peak() -> int:
    """Bytes in use; from here on `_peak` counts anew. Memory that was freed goes back to the system first, so that its reuse counts."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Most bytes that were in use at once."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
