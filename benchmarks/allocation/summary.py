"""What the rows say: gap and seconds of every network's front, and the worst gap against enumeration."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """{network: {gap, front_seconds, points, ...}}, and for the small problems the worst distance to the enumerated optimum.

    gap: the largest certified gap over all budgets of the front, from one solve; gap_mean: their mean. front_seconds: wall time of that
    solve; front_cpu_seconds: processor time, which other work on the machine does not lengthen, and by which `met` judges (10 s).
    """
    table = list(rows)
    fronts = {r["network"]: r for r in table if r["kind"] == "front"}
    kept = ("gap_mean", "front_cpu_seconds", "points", "budgets", "variables")
    small = [r["gap_max"] for r in table if r["kind"] == "small"]
    return {
        **{n: {"gap": r["gap_max"], "front_seconds": r["front_seconds"], **{k: r[k] for k in kept}} for n, r in fronts.items()},
        "worst_gap_to_brute_force": max(small, default=None),
        "met": {n: r["gap_max"] <= 1e-3 and r["front_cpu_seconds"] < 10 for n, r in fronts.items()},
    }
