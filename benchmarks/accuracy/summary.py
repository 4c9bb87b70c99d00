"""What the rows say: mean accuracy with its interval for every network, budget and contender, and how often ours is best."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # 97.5% quantiles by degrees of freedom
OURS = "ours"
OFF = 0.05  # a row whose measured share is further than that from its budget is not at equal latency, and is left out


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """The suite's summary: accuracy {network: {budget: {contender: [mean, low, high]}}} after fine-tuning, and likewise one-shot.

    The interval is Student's at 95% over the seeds, none (the mean twice) for a single one. ours_best_share: of the cells (network x
    budget), the share in which ours is above every other contender by more than the intervals allow, that is, ours' low is above
    every other's high. left_out: rows that missed their budget, by name.
    """
    table = [r for r in rows if r.get("part") == "presets"]
    equal = [r for r in table if r["contender"] == "dense" or abs(r["share"][0] / r["budget"] - 1) <= OFF]
    tuned, once = _cells(equal, "fine_tuned"), _cells(equal, "one_shot")
    return {
        "accuracy": tuned,
        "ours_best_share": _best_share(tuned),
        "one_shot": once,
        "ours_best_share_one_shot": _best_share(once),
        "ours_first_share": _first_share(tuned),
        "left_out": [name(r) for r in table if r not in equal],
        "seeds": sorted({r["seed"] for r in table}),
    }


def interval(values: Sequence[float]) -> list[float]:
    """[mean, low, high] of the mean, Student's at 95%."""
    mean = fmean(values)
    half = _STUDENT.get(len(values) - 1, 2.0) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return [round(mean, 4), round(mean - half, 4), round(mean + half, 4)]


def name(row: Row) -> str:
    """A row's case in a few words."""
    return f"{row['network']} {row['budget']:.0%} {row['contender']} seed {row['seed']}"


Cells: TypeAlias = dict[str, dict[str, dict[str, list[float]]]]


def _cells(rows: Sequence[Row], column: str) -> Cells:
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        cell = found.setdefault(row["network"], {}).setdefault(f"{row['budget']:g}", {})
        cell.setdefault(row["contender"], []).append(row[column][0])
    return {n: {b: {c: interval(v) for c, v in cs.items()} for b, cs in budgets.items()} for n, budgets in found.items()}


def _contests(cells: Cells) -> list[tuple[list[float], list[list[float]]]]:
    """(ours, all others) of every cell that has both."""
    all_cells = [cell for budgets in cells.values() for cell in budgets.values()]
    pairs = [(cell.get(OURS), [v for c, v in cell.items() if c not in {OURS, "dense"}]) for cell in all_cells]
    return [(ours, others) for ours, others in pairs if ours is not None and others]


def _best_share(cells: Cells) -> float | None:
    contests = _contests(cells)
    return round(sum(all(ours[1] > o[2] for o in others) for ours, others in contests) / len(contests), 3) if contests else None


def _first_share(cells: Cells) -> float | None:
    """Share of the cells in which ours has the highest mean, whatever the intervals."""
    contests = _contests(cells)
    return round(sum(all(ours[0] >= o[0] for o in others) for ours, others in contests) / len(contests), 3) if contests else None
