"""Local search by single swaps: fills what the concave envelope leaves between its breakpoints.

A swap gives one decision another size. All swaps of many plans are evaluated at once, by the tables that each decision touches.
"""

import numpy as np

from .allocation_model import Model
from .allocation_problem import Bools, Floats, Ints

_BEAM = 64
_PATIENCE = 3  # rounds without improvement
_ROUNDS = 24


class Swaps:
    """Evaluates every single swap of given plans."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.parts = {s.out: s for s in model.sums}
        self.touched: list[list[int]] = [[] for _ in range(model.decisions)]
        for number, t in enumerate(model.tables):
            for d in {d for v in t.scope for d in (self.parts[v].parts if v in self.parts else (v,))}:
                self.touched[d].append(number)
        self.owner = np.repeat(np.arange(model.decisions), model.states[: model.decisions])
        self.state = np.concatenate([np.arange(n) for n in model.states[: model.decisions]])

    def evaluate(self, choices: Ints) -> tuple[Floats, Bools]:
        """Channel totals [plans, swaps, channels] after each swap, and whether it keeps the side constraints.

        Swap i gives decision `owner[i]` the state `state[i]`. The plans [plans, decisions] themselves keep the constraints.
        """
        model = self.model
        full = model.complete(choices)
        base = [t.gains[tuple(full[:, v] for v in t.scope)] for t in model.tables]
        total = np.sum(base, axis=0) + model.constants
        columns: list[Floats] = []
        allowed: list[Bools] = []
        for d in range(model.decisions):
            column = np.repeat(total[:, None], model.states[d], axis=1)
            fine = np.ones(column.shape[:2], dtype=np.bool_)
            after: dict[int, Ints] = {d: np.arange(model.states[d])[None, :]}
            for number in self.touched[d]:
                t = model.tables[number]
                index = tuple(self._after(v, d, full, after) for v in t.scope)
                column += t.gains[index] - base[number][:, None]
                fine = fine & t.allowed[index]
            columns.append(column)
            allowed.append(fine)
        return np.concatenate(columns, axis=1), np.concatenate(allowed, axis=1)

    def _after(self, v: int, d: int, full: Ints, known: dict[int, Ints]) -> Ints:
        """States of variable v after each swap of decision d: [plans or 1, swaps of d or 1]."""
        if v not in known:
            s = self.parts.get(v)
            if s is None or d not in s.parts:
                known[v] = full[:, v, None]
            else:
                widths = s.parts[d]
                moved = s.totals[full[:, v]][:, None] - widths[full[:, d]][:, None] + widths[None, :]
                known[v] = np.searchsorted(s.totals, moved)
        return known[v]

    def apply(self, choices: Ints, plans: Ints, swaps: Ints) -> Ints:
        """The plans choices[plans], each after the swap of the same position."""
        result = choices[plans].copy()
        result[np.arange(len(plans)), self.owner[swaps]] = self.state[swaps]
        return result


def fill(swaps: Swaps, starts: Ints, limits: Floats, prices: Floats, goal: float) -> Ints | None:
    """Best plan within the limits that a beam of swaps reaches from the starts; None if it meets no plan within them.

    The score of a plan is its value, plus half the worth of what it leaves unused, less one and a half times the worth of its
    excess: it leads along the envelope towards the limits from both sides. Stops at the value `goal`.
    """
    model = swaps.model
    totals, allowed = model.totals(starts)
    choices, totals = starts[allowed], totals[allowed]
    if not len(choices):
        return None
    spread = np.maximum(np.ptp(totals, axis=0), 1e-300)
    fines = np.maximum(prices, spread[0] / spread[1:])
    seen: set[bytes] = set()
    best: Ints | None = None
    best_value, quiet = -np.inf, 0
    for _ in range(_ROUNDS):
        seen.update(c.tobytes() for c in choices)
        values = np.where((totals[:, 1:] <= limits).all(axis=1), totals[:, 0], -np.inf)
        quiet += 1
        if values.max() > best_value:
            best, best_value, quiet = choices[values.argmax()], float(values.max()), 0
        if best_value >= goal or quiet >= _PATIENCE:
            break
        after, fine = swaps.evaluate(choices)
        over = after[..., 1:] - limits
        unused = np.where(prices > 0, np.maximum(-over, 0.0), 0.0)
        score = np.where(fine, after[..., 0] + 0.5 * unused @ prices - 1.5 * np.maximum(over, 0.0) @ fines, -np.inf)
        choices = _distinct(swaps, choices, score, seen)
        if not len(choices):
            break
        totals, _ = model.totals(choices)
    return best


def _distinct(swaps: Swaps, choices: Ints, score: Floats, seen: set[bytes]) -> Ints:
    """The best new plans, at most as many as the beam holds."""
    flat = score.reshape(-1)
    count = min(8 * _BEAM, flat.size)
    top = np.sort(np.argpartition(-flat, count - 1)[:count])
    top = top[np.isfinite(flat[top])]
    top = top[np.argsort(-flat[top], kind="stable")]
    plans, numbers = np.divmod(top, score.shape[1])
    picked: dict[bytes, Ints] = {}
    for plan in swaps.apply(choices, plans, numbers):
        key = plan.tobytes()
        if key not in seen and len(picked) < _BEAM:
            picked.setdefault(key, plan)
    return np.array(list(picked.values()), dtype=np.intp).reshape(-1, choices.shape[1])
