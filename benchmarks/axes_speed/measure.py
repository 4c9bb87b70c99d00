"""CPU seconds and peak memory of both tools on one network, each in a child of its own."""

import functools
import resource
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from .networks import Made


def ours(build: Callable[[], Made], note: Callable[[dict[str, Any]], None]) -> None:
    """Capture, analysis (all passes up to the axes) and the cut of a half of every axis (every second index)."""
    from billhook.ir.capture import capture
    from billhook.ir.passes import run_passes
    from billhook.ir.plan import make_plan
    from billhook.passes.analyse import ANALYSIS
    from billhook.passes.cut import cut_graph

    _warm_up(lambda m, x: cut_graph(p := run_passes(capture(m, (x,)), ANALYSIS)[0], make_plan(p, {})))
    model, x = build()
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    program, row["capture_s"] = _timed(lambda: capture(model, (x,)))
    before = _peak()
    row["analysis_s"] = 0.0
    for _, transform in ANALYSIS:
        program, seconds = _timed(functools.partial(transform, program))
        row["analysis_s"] += seconds
    row["axes"] = len(program.axes)
    note(row)
    kept = {axis.name: range(0, axis.size, 2) for axis in program.axes if axis.prunable}
    plan = make_plan(program, kept)
    _, row["cut_s"] = _timed(lambda: cut_graph(program, plan))
    row["memory_bytes"] = _peak() - before
    note(row)


def theirs(build: Callable[[], Made], note: Callable[[dict[str, Any]], None]) -> None:
    """Torch-Pruning: its graph, one enumeration of all groups, and one step of its magnitude pruner at a ratio of a half."""
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    model, x = build()
    last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    row: dict[str, Any] = {}
    before = _peak()
    graph, row["peer_build_s"] = _timed(lambda: cast(Any, tp.DependencyGraph()).build_dependency(model, example_inputs=x))
    groups, row["peer_groups_s"] = _timed(
        lambda: list(graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]))
    )
    row["peer_groups"] = len(groups)
    note(row)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    made, row["peer_constructor_s"] = _timed(lambda: tp.pruner.BasePruner(model, x, importance, pruning_ratio=0.5, ignored_layers=[last]))
    _, row["peer_step_s"] = _timed(made.step)
    row["peer_memory_bytes"] = _peak() - before
    row["peer_s"] = row["peer_build_s"] + row["peer_groups_s"] + row["peer_step_s"]
    note(row)


def _warm_up(use: Callable[[nn.Module, torch.Tensor], Any]) -> None:
    """The first use of a library imports and registers things that no later use pays for."""
    use(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval(), torch.randn(2, 3, 4, 4))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
