"""What the rows say: mean accuracy with its interval for every network, budget and contender, and how often ours is best."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # 97.5% quantiles by degrees of freedom
OURS = "ours"
OFF = 0.03  # a row whose share of the dense latency is further than that from its budget is not at equal latency


def summarise(rows: Iterable[Row], built: Iterable[Row] = ()) -> dict[str, Any]:
    """The suite's summary: accuracy {network: {budget: {contender: [mean, low, high]}}} after fine-tuning, and likewise one-shot.

    The interval is Student's at 95% over the seeds, none (the mean twice) for a single one. ours_best_share: of the cells (network x
    budget), the share in which ours is above every other contender by more than the intervals allow, that is, ours' low is above
    every other's high. built: measured shares of networks that were built. A row whose network is faster than its budget by more than
    OFF is no equal contender and left out (off_budget); slower ones stay, to their own advantage, except for ours.
    """
    shares = {(b["network"], _key(b["sizes"])): b["share"][0] for b in built}
    table: list[dict[str, Any]] = [{**r, "share": shares.get((r["network"], _key(r["sizes"])))} for r in rows if r.get("part") == "presets"]
    equal = [r for r in table if _at_budget(r)]
    tuned, once = _cells(equal, "fine_tuned"), _cells(equal, "one_shot")
    return {
        "accuracy": tuned,
        "ours_best_share": _best_share(tuned),
        "one_shot": once,
        "ours_best_share_one_shot": _best_share(once),
        "ours_first_share": _first_share(tuned),
        "ours_first_share_one_shot": _first_share(once),
        "off_budget": [name(r) for r in table if r not in equal],
        "built": _checked(table),
        "seeds": sorted({r["seed"] for r in table}),
        **_others([*rows] if isinstance(rows, Sequence) else []),
    }


def _key(sizes: Mapping[str, int]) -> str:
    return json.dumps(sizes, sort_keys=True)


def _latency(row: Row) -> float:
    return row["expected_share"] if row["share"] is None else row["share"]


def _at_budget(row: Row) -> bool:
    off = _latency(row) / row["budget"] - 1
    return row["contender"] == "dense" or (off >= -OFF and (off <= OFF or row["contender"] != OURS))


def _checked(table: Sequence[Row]) -> dict[str, Any]:
    """How many rows were built and measured, and how far the measured shares are from the expected ones."""
    both = [(r["share"] / r["expected_share"] - 1, r) for r in table if r["share"] is not None and r["contender"] != "dense"]
    wanted = sum(r["contender"] != "dense" for r in table)
    errors = [abs(e) for e, _ in both]
    largest = max(errors, default=None)
    return {"rows": len(both), "of": wanted, "mean_error": fmean(errors) if errors else None, "largest_error": largest}


def _others(rows: Sequence[Row]) -> dict[str, Any]:
    """The other parts: mean one-shot accuracy by network, budget and criterion or compensation; correlations of the objective."""
    found: dict[str, Any] = {}
    for part in ("criteria", "compensation"):
        if mine := [r for r in rows if r.get("part") == part]:
            found[part] = _cells(mine, "one_shot")
    if fidelity := [r for r in rows if r.get("part") == "fidelity"]:
        found["fidelity"] = {}
        for row in fidelity:
            cell = found["fidelity"].setdefault(row["network"], {}).setdefault(f"{row['budget']:g}", {"before": [], "after": []})
            cell["before"].append(row["before"]["spearman"])
            cell["after"].append(row["after"]["spearman"])
    return found


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
