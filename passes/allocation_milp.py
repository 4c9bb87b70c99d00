"""The allocation as a mixed integer linear program for HiGHS: exact, for closing the last gap.

Local-polytope form: x[v, s] says that variable v is in state s, z[t, entry] that table t is at that entry; the z of a table add up to
the x of each of its variables. The decisions' x are binary, everything else follows from them and stays continuous.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import optimize, sparse

from .allocation_model import Model
from .allocation_problem import Floats, Ints

_optimize: Any = optimize  # scipy has no types
_sparse: Any = sparse
_ROW_SCALE = 1e3  # a limit's row is scaled to this, so that HiGHS's absolute tolerance of 1e-6 is 1e-9 of the limit


@dataclass(frozen=True, slots=True, eq=False)
class MilpResult:
    """A plan, if one was found, and an upper bound for all plans within the limits: -inf if there is none."""

    choice: Ints | None
    bound: float


class _Rows:
    """Sparse equality rows under construction."""

    def __init__(self) -> None:
        self.rows: list[Ints] = []
        self.columns: list[Ints] = []
        self.signs: list[Floats] = []
        self.count = 0

    def marginal(self, states: Ints, entries: Ints, first_entry: int, first_state: int, size: int) -> None:
        """For each state: the entries with it add up to it. `entries` are columns, `states` the state of each."""
        self.rows += [self.count + states, self.count + np.arange(size)]
        self.columns += [first_entry + entries, first_state + np.arange(size)]
        self.signs += [np.ones(len(states)), -np.ones(size)]
        self.count += size


def solve_milp(model: Model, limits: Floats, gap: float, seconds: float) -> MilpResult:
    """Best plan within the limits [cost channels] to a relative gap, or the best one found in the given number of seconds.

    HiGHS accepts a plan that exceeds a limit by up to a millionth. Such a plan is excluded, and HiGHS asked again.
    """
    excluded: list[Ints] = []
    end = time.monotonic() + seconds
    while True:
        result = _solve(model, limits, excluded, gap, max(end - time.monotonic(), 0.0))
        if result.choice is None or time.monotonic() > end:
            return result
        totals, _ = model.totals(result.choice[None])
        if (totals[0, 1:] <= limits).all():
            return result
        excluded.append(result.choice)


def _solve(model: Model, limits: Floats, excluded: list[Ints], gap: float, seconds: float) -> MilpResult:
    offsets = np.cumsum([0, *model.states])
    gains = [np.zeros((offsets[-1], len(model.constants)))]
    closed: list[Ints] = []
    columns = int(offsets[-1])
    rows = _Rows()
    grids = [(t.scope, np.nonzero(t.allowed), t.gains) for t in model.tables if len(t.scope) > 1]
    for t in (t for t in model.tables if len(t.scope) == 1):
        gains[0][offsets[t.scope[0]] + np.arange(len(t.allowed))] += t.gains
        closed.append(offsets[t.scope[0]] + np.flatnonzero(~t.allowed))
    for s in model.sums:
        pairs = tuple(i.reshape(-1) for i in np.indices(s.successor.shape))
        grids.append(((s.left, s.right, s.out), (*pairs, s.successor.reshape(-1)), np.zeros((*s.successor.shape, model.states[s.out], 0))))
    for scope, index, table in grids:
        count = len(index[0])
        for v, states in zip(scope, index, strict=True):
            rows.marginal(states, np.arange(count), columns, int(offsets[v]), model.states[v])
        gains.append(table[index] if table.shape[-1] else np.zeros((count, len(model.constants))))
        columns += count
    upper = np.ones(columns)
    upper[np.concatenate([*closed, np.zeros(0, dtype=np.intp)])] = 0.0
    bars = np.zeros((len(excluded), columns))
    for bar, plan in zip(bars, excluded, strict=True):
        bar[offsets[: model.decisions] + plan] = 1.0
    extra = [_optimize.LinearConstraint(bars, -np.inf, model.decisions - 1.0)] if excluded else []
    result = _run(model, limits, np.concatenate(gains), rows, upper, extra, {"time_limit": seconds, "mip_rel_gap": gap})
    choice = None
    if result.x is not None:
        choice = np.array([np.argmax(result.x[a:b]) for a, b in pairwise(offsets[: model.decisions + 1])], dtype=np.intp)
    if result.status == 2:
        return MilpResult(None, -np.inf)
    dual = result.mip_dual_bound
    return MilpResult(choice, np.inf if dual is None else float(-dual * _unit(model) + model.constants[0]))


def _unit(model: Model) -> float:
    """Scale of the objective: about its largest value over 1000, so that HiGHS's absolute gap of 1e-6 is negligible."""
    return max(sum(float(np.abs(t.gains[..., 0]).max()) for t in model.tables) / 1e3, 1e-300)


def _run(model: Model, limits: Floats, gains: Floats, rows: _Rows, upper: Floats, extra: list[Any], options: dict[str, float]) -> Any:
    offsets = np.cumsum([0, *model.states])
    owner = np.repeat(np.arange(len(model.states)), model.states)
    one_state = _sparse.coo_array((np.ones(offsets[-1]), (owner, np.arange(offsets[-1]))), shape=(len(model.states), len(upper)))
    constraints = [_optimize.LinearConstraint(one_state.tocsr(), 1.0, 1.0), *extra]
    if rows.count:
        data = (np.concatenate(rows.signs), (np.concatenate(rows.rows), np.concatenate(rows.columns)))
        constraints.append(_optimize.LinearConstraint(_sparse.coo_array(data, shape=(rows.count, len(upper))).tocsr(), 0.0, 0.0))
    room = limits - model.constants[1:]
    for r in np.flatnonzero(np.isfinite(room)):
        scale = _ROW_SCALE / max(abs(room[r]), float(np.abs(gains[:, 1 + r]).max()), 1e-300)
        constraints.append(_optimize.LinearConstraint(gains[None, :, 1 + r] * scale, -np.inf, room[r] * scale))
    integral = np.zeros(len(upper))
    integral[: offsets[model.decisions]] = 1
    return _optimize.milp(
        -gains[:, 0] / _unit(model), integrality=integral, bounds=_optimize.Bounds(0.0, upper), constraints=constraints, options=options
    )
