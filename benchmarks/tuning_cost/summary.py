"""What the rows say: seconds and errors of the tables, measurements of the fronts, hit rates."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """The suite's summary; None for what was not measured. Errors are shares of the latency with all candidates, or tuned anew.

    A replayed kernel's error is what replaying loses (and the noise of two timings); a surface's error is its interpolation.
    The hit rate is that of the first pair of models.
    """
    table = list(rows)
    parts = {r["part"]: r for r in table if r["suite"] == "table"}
    replay, surface, all_candidates = (parts.get(name) for name in ("replay", "surface", "all candidates"))
    reuse = [r for r in table if r["suite"] == "reuse"]
    fronts = [r for r in table if r["suite"] == "front"]
    tuned = [r for name, r in parts.items() if name.startswith("generic tuned")]
    return {
        "replay_seconds_200": _of(replay, "table_seconds"),
        "replay_error_median": _error(replay, [all_candidates]),
        "replay_loss_median": _error(replay, [all_candidates], signed=True),
        "surface_seconds_200": _of(surface, "table_seconds"),
        "surface_error_median": _error(surface, [all_candidates]),
        "all_candidates_seconds_200": _of(all_candidates, "table_seconds"),
        "generic_replay_seconds_200": _of(parts.get("generic replay"), "table_seconds"),
        "generic_replay_loss_median": _error(parts.get("generic replay"), tuned, signed=True),
        "generic_tuning_seconds_each": round(median(r["table_seconds"] for r in tuned), 1) if tuned else None,
        "hit_rate_second_model": round(reuse[0]["hit_rate"], 4) if reuse else None,
        "hit_rates": {f"{r['first']}, then {r['second']}": round(r["hit_rate"], 4) for r in reuse},
        "front": {r["network"]: {k: r[k] for k in ("measurements", "minutes", "worst", "kernels", "step")} for r in fronts},
    }


def _of(row: Row | None, key: str) -> float | None:
    return None if row is None else round(float(row[key]), 1)


def _error(row: Row | None, truth: Sequence[Row | None], *, signed: bool = False) -> float | None:
    """Median of |table / truth - 1| over the pairs that both have; signed: without the bars, so positive is slower."""
    true = {(i, o): seconds for t in truth if t is not None for i, o, seconds in t["pairs"]}
    off = [s / true[i, o] - 1 for i, o, s in (row["pairs"] if row is not None else ()) if (i, o) in true]
    return round(median(off if signed else map(abs, off)), 4) if off else None
