"""What the rows say: the worst deviation from a budget and the most rounds that a loop took."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """The suite's summary. Deviations are measured / budget - 1, by the final measurement of each compilation.

    A budget that was missed altogether has no deviation: it is named in `missed`, and counts as such wherever it is read.
    """
    table = list(rows)
    met = [r for r in table if "missed" not in r]
    deviations: list[float] = [r["deviation"] for r in met]
    first: list[float] = [r["rounds"][0]["measured"]["seconds"] / r["rounds"][0]["predicted"]["seconds"] - 1 for r in met if r["rounds"]]
    return {
        "worst_deviation": round(max(map(abs, deviations)), 4) if met else None,
        "rounds_max": max((len(r["rounds"]) for r in met), default=None),
        "median_deviation": round(median(map(abs, deviations)), 4) if met else None,
        "within_3_percent": f"{sum(abs(d) <= 0.03 for d in deviations)} of {len(table)}",
        "above_budget": sum(d > 0 for d in deviations),
        "first_prediction_error_median": round(median(map(abs, first)), 4) if first else None,
        "too_noisy": sum(bool(r["too_noisy"]) for r in met),
        "missed": {name(r): r["missed"] for r in table if "missed" in r},
        "deviations": {name(r): round(r["deviation"], 4) for r in met},
        "rounds": {name(r): len(r["rounds"]) for r in met},
    }


def name(row: Row) -> str:
    """A row's case in a few words."""
    return f"{row['network']} t{row['threads']} {row['budget']:.0%}"
