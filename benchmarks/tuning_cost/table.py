"""A table of 200 (in, out) pairs: by replay, by the cost model's surface, and by choosing or tuning anew for each pair."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

from benchmarks.rows import Row
from billhook.codegen import lower, metaschedule
from billhook.codegen.cpu.candidate import Candidate, candidate_from_json
from billhook.codegen.timer import KernelTimer
from billhook.codegen.tuner import Tuner
from billhook.compiler.engine import TRIALS, Engine
from billhook.costmodel.family import Widths
from billhook.costmodel.surface import Surface
from billhook.costmodel.work import kernel_flops
from billhook.ir.progress import Progress
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .pairs import INPUTS, OUTPUTS, PAIRS, PairFamily

REPLAY_BUDGET = 0.01  # seconds of timing per kernel: one candidate needs no comparison
ANCHORS = tuple((i, o) for i in (INPUTS[1], INPUTS[5], INPUTS[-1]) for o in (OUTPUTS[1], OUTPUTS[9], OUTPUTS[-1]))
Seconds: TypeAlias = dict[Widths, float]


def by_surface(family: PairFamily, engine: Engine) -> tuple[Row, Seconds]:
    """The cost model's table: a few pairs measured with all candidates, the others interpolated."""
    surface = Surface(family, (INPUTS, OUTPUTS), engine.costs, kernel_flops)
    before, begun = engine.measured, time.perf_counter()
    surface.prepare(progress=engine.progress)
    table = surface.table((INPUTS, OUTPUTS))
    taken = time.perf_counter() - begun
    found = {(i, o): float(table[a, b]) for a, i in enumerate(INPUTS) for b, o in enumerate(OUTPUTS)}
    return {"table_seconds": taken, "measured": engine.measured - before}, found


def by_replay(family: PairFamily, engine: Engine, progress: Progress) -> tuple[Row, Seconds]:
    """Candidates are compared at nine anchors; every other pair is built with what won at the nearest of them, and timed."""
    begun = time.perf_counter()
    anchors = {widths: _present(family, widths) for widths in ANCHORS}
    engine.costs.cost_many(anchors.values(), progress, "measure anchors")
    winners = {widths: candidate_from_json(engine.costs.cost(w).candidate) for widths, w in anchors.items()}
    others = [p for p in PAIRS if p not in winners]
    found = _timed(family, others, lambda w, p: _nearest(p, winners, w, engine.target), engine.target, progress)
    found |= {widths: _seconds(engine, w) for widths, w in anchors.items()}
    return {"table_seconds": time.perf_counter() - begun, "anchors": len(anchors)}, found


def by_measuring(family: PairFamily, engine: Engine, progress: Progress) -> tuple[Row, Seconds]:
    """All candidates of every pair. What the database has is not measured again, so the seconds are those of the missing ones."""
    workloads = {widths: _present(family, widths) for widths in PAIRS}
    before, begun = engine.measured, time.perf_counter()
    engine.costs.cost_many(workloads.values(), progress, "measure all candidates")
    taken = {"table_seconds": time.perf_counter() - begun, "measured": engine.measured - before}
    return taken, {widths: _seconds(engine, w) for widths, w in workloads.items()}


def by_tuned_replay(family: PairFamily, target: Target, work_dir: Path, progress: Progress) -> tuple[Row, Seconds]:
    """As the compiler does it: the pair in the middle is tuned first, and another one wherever no schedule so far can be replayed."""
    begun, tuner = time.perf_counter(), Tuner(target, TRIALS, work_dir)
    schedules: set[str] = set()

    def choose(workload: Workload, _: Widths) -> tuple[Candidate, ...]:
        candidates = tuner.candidates(workload)
        schedules.update(c.schedule for c in candidates if c.schedule)
        return candidates

    found = _timed(family, sorted(PAIRS, key=lambda p: p != ANCHORS[4]), choose, target, progress)
    return {"table_seconds": time.perf_counter() - begun, "anchors": len(schedules), "trials": TRIALS}, found


def by_tuning(family: PairFamily, target: Target, widths: Widths, work_dir: Path) -> tuple[Row, Seconds]:
    """One pair tuned anew."""
    workload, begun = _present(family, widths), time.perf_counter()
    tuned = metaschedule.tune(workload, target, TRIALS, work_dir)
    taken = time.perf_counter() - begun
    with KernelTimer(target) as timer:
        return {"table_seconds": taken}, {widths: timer.measure_candidates(workload, (tuned,)).latency.seconds}


def _timed(
    family: PairFamily,
    pairs: Sequence[Widths],
    choose: Callable[[Workload, Widths], tuple[Candidate, ...]],
    target: Target,
    progress: Progress,
) -> Seconds:
    """Seconds of every pair with the best candidate chosen for it, on all cores at once. Choosing, which may tune, comes first."""
    chosen: list[tuple[Workload, tuple[Candidate, ...]]] = []
    for widths in pairs:
        workload = _present(family, widths)
        chosen.append((workload, choose(workload, widths)))
        progress("choose candidates", len(chosen), len(pairs))
    timers = [KernelTimer(target, core=core, budget=REPLAY_BUDGET) for core in sorted(os.sched_getaffinity(0))]
    idle: SimpleQueue[KernelTimer] = SimpleQueue()
    for timer in timers:
        idle.put(timer)

    def one(workload: Workload, candidates: tuple[Candidate, ...]) -> float:
        timer = idle.get()
        try:
            return timer.measure_candidates(workload, candidates).latency.seconds
        finally:
            idle.put(timer)

    found: Seconds = {}
    try:
        with ThreadPoolExecutor(len(timers)) as pool:
            for widths, seconds in zip(pairs, pool.map(one, *zip(*chosen, strict=True)), strict=True):
                found[widths] = seconds
                progress("replay", len(found), len(pairs))
    finally:
        for timer in timers:
            timer.close()
    return found


def _nearest(widths: Widths, winners: Mapping[Widths, Candidate], workload: Workload, target: Target) -> tuple[Candidate, ...]:
    """The winner at the nearest anchor (in octaves) that is a candidate here too; where none is, the statically best one."""
    legal = lower.candidates(workload, target)
    near = sorted(winners, key=lambda w: math.dist([math.log2(x) for x in w], [math.log2(x) for x in widths]))
    return next(((winners[w],) for w in near if winners[w] in legal), legal[:1])


def _present(family: PairFamily, widths: Widths) -> Workload:
    workload = family.workload(widths)
    assert workload is not None
    return workload


def _seconds(engine: Engine, workload: Workload) -> float:
    latency = engine.costs.cost(workload).latency
    assert latency is not None
    return latency.seconds


def packed(seconds: Seconds) -> list[list[Any]]:
    """A table as JSON: [in, out, seconds] of every pair."""
    return [[*widths, taken] for widths, taken in seconds.items()]
