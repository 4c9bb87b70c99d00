"""One row: every prunable axis of a model cut alone (a random half; nothing, where readers sum over it) and compared with its mask,
then random sets of axes at random sizes, compared at the outputs.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from billhook.ir.axis import Axis
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.ir.tensors import tensors_in
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.mask import mask_graph
from billhook.passes.oracle import relative_error
from billhook.passes.oracle_local import LocalOracle

from .case import Case, Example
from .measure import mixes_precision, outputs, precise, settle
from .support import cheap_construction, redraw

COMBINATIONS = 3
VISIBLE = 100.0  # a mask has to change at least this many times the error, or the comparison shows nothing


@dataclass
class AxesRow:
    """checked: axes of which every cut was compared, of `prunable`; vanished: those among them that were cut to nothing.

    Axes are taken in random order, so that a row that ran out of its time box is a sample. unseen: cuts whose mask changes
    nothing, so that equality says nothing. beyond: cuts that differ at the border of the axis and agree at the outputs.
    """

    set: str
    model: str
    stage: str = "build"
    error: str = ""
    prunable: int = 0
    checked: int = 0
    vanished: int = 0
    combinations: int = 0
    worst_error: float = 0.0
    unseen: list[str] = field(default_factory=list[str])
    beyond: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


def line_of(row: Mapping[str, Any]) -> str:
    """A row in one line."""
    verdict = f"WRONG {row['wrong']}" if row["wrong"] else "ok" if row["stage"] == "done" else f"{row['stage']}: {row['error'][:200]}"
    unseen = f", unseen {row['unseen']}" if row["unseen"] else ""
    return f"{verdict}, {row['checked']} of {row['prunable']} axes, error {row['worst_error']:.1e}{unseen}"


def check_axes(case: Case, row: AxesRow, reached: Callable[[], None], seconds: float) -> None:
    """Fill the row. seconds: CPU time for the comparisons, after which what is left of the axes is not checked."""
    with cheap_construction():
        model, (args, kwargs) = case.build()
    redraw(model)
    model, args, kwargs, tolerance = precise(model, args, dict(kwargs))
    settle(model, args, kwargs)
    row.stage = "analysis"
    program, _ = run_passes(capture(model, args, kwargs), ANALYSIS)
    tolerance = max(tolerance, 1e-5 if mixes_precision(program) else 0.0)
    axes = [axis for axis in program.axes if axis.prunable]
    row.prunable, row.stage = len(axes), "axes"
    reached()
    generator, started = np.random.default_rng(0), time.process_time()
    bench = _Bench(program, (args, kwargs), tolerance, row)
    for i in generator.permutation(len(axes)):
        if time.process_time() - started > seconds:
            break
        for plan in _alone(program, axes[i], generator):
            bench.check_alone(plan)
        row.checked, row.vanished = row.checked + 1, row.vanished + axes[i].additive
        row.seconds = time.process_time() - started
        reached()
    for _ in range(COMBINATIONS if row.checked == row.prunable else 0):
        bench.check_together(make_plan(program, _some(axes, generator)))
        row.combinations += 1
    row.seconds = time.process_time() - started
    row.stage = "done" if row.checked == row.prunable else "out of its time box"


class _Bench:
    """A program, its example and its dense values, with the row that takes the findings."""

    def __init__(self, program: Program, example: Example, tolerance: float, row: AxesRow) -> None:
        self.program, self.example, self.tolerance, self.row = program, example, tolerance, row
        self.oracle = LocalOracle(program, example)
        self.dense = tensors_in([self.oracle.dense[node] for node in self.oracle.outputs])

    def check_alone(self, plan: Plan) -> None:
        """Compare at the border of the axis; where that differs, the outputs decide."""
        found = self.oracle.compare(plan)
        if found.error < self.tolerance:
            self._note(plan, found.error, found.moved)
        elif self.check_together(plan):
            self.row.beyond.append(str(plan))

    def check_together(self, plan: Plan) -> bool:
        """Compare the outputs of whole networks."""
        masked = outputs(mask_graph(self.program, plan), *self.example)
        error = relative_error(outputs(cut_graph(self.program, plan), *self.example), masked)
        return self._note(plan, error, relative_error(masked, self.dense))

    def _note(self, plan: Plan, error: float, moved: float) -> bool:
        if not error < self.tolerance:
            self.row.wrong.append(f"{plan}: {error:.1e}"[:300])
            return False
        self.row.worst_error = max(self.row.worst_error, error)
        if moved <= VISIBLE * error or math.isnan(moved):
            self.row.unseen.append(str(plan)[:300])
        return True


def _alone(program: Program, axis: Axis, generator: np.random.Generator) -> Iterator[Plan]:
    yield make_plan(program, {axis.name: _indices(axis, max(axis.least, axis.size // 2), generator)})
    if axis.additive:
        yield make_plan(program, {axis.name: []})


def _some(axes: list[Axis], generator: np.random.Generator) -> dict[str, list[int]]:
    """Each axis with even odds, at a random size."""
    chosen = [axis for axis in axes if generator.random() < 0.5] or axes[:1]
    return {axis.name: _indices(axis, int(generator.integers(axis.least, axis.size)), generator) for axis in chosen}


def _indices(axis: Axis, count: int, generator: np.random.Generator) -> list[int]:
    return sorted(generator.choice(axis.size, count, replace=False).tolist())
