"""What the rows say: mean accuracy with its interval for every network, budget and contender, and how often ours is best."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, TypeAlias

from .aim import EQUAL
from .contenders import OURS

Row: TypeAlias = Mapping[str, Any]
Cells: TypeAlias = dict[str, dict[str, dict[str, list[float]]]]  # by network, budget and contender: [mean, low, high]
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # 97.5% quantiles by degrees of freedom


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """The suite's summary: accuracy {network: {budget: {contender: [mean, low, high]}}} after fine-tuning, and likewise one-shot.

    The interval is Student's at 95% over the seeds, none (the mean twice) for a single one. ours_best_share: of the cells (network x
    budget), the share in which ours is above every other contender by more than the intervals allow, that is, ours' low is above
    every other's high. ours_paired: for every cell the interval of ours less each other, by seeds, which share the dense network;
    ours_paired_share: of the cells with several seeds of everybody, the share in which all these intervals are above 0.
    Shares are those of networks that were built. A row whose network is faster than its budget by more than EQUAL is no equal contender
    and left out (off_budget); slower ones stay, to their own advantage. For ours it is the other way round.
    """
    everything = list(rows)
    table = [r for r in everything if r.get("part") == "presets"]
    equal = [r for r in table if _at_budget(r)]
    tuned, once = _cells(equal, "fine_tuned"), _cells(equal, "one_shot")
    paired, paired_once = _paired(equal, "fine_tuned"), _paired(equal, "one_shot")
    return {
        "accuracy": tuned,
        "ours_best_share": _best_share(tuned),
        "one_shot": once,
        "ours_best_share_one_shot": _best_share(once),
        "ours_first_share": _first_share(tuned),
        "ours_first_share_one_shot": _first_share(once),
        "ours_paired": paired,
        "ours_paired_share": _paired_share(paired),
        "ours_paired_share_one_shot": _paired_share(paired_once),
        "off_budget": {name(r): round(r["share"], 4) for r in table if r not in equal},
        "slower": {name(r): round(r["share"], 4) for r in equal if r["share"] > (1 + EQUAL) * r["budget"] and r["contender"] != "dense"},
        "predicted": _checked(table),
        "seeds": sorted({r["seed"] for r in table}),
        **_others(everything),
    }


def _at_budget(row: Row) -> bool:
    off = row["share"] / row["budget"] - 1
    return row["contender"] == "dense" or (off <= EQUAL if row["contender"] == OURS else off >= -EQUAL)


def _checked(table: Sequence[Row]) -> dict[str, Any]:
    """How far sums of measured kernels are from networks that were built."""
    errors = [abs(r["predicted_share"] / r["share"] - 1) for r in table if r["contender"] != "dense"]
    return {"rows": len(errors), "mean_error": fmean(errors) if errors else None, "largest_error": max(errors, default=None)}


def _paired(rows: Sequence[Row], column: str) -> Cells:
    """[mean, low, high] of ours less every other contender over the seeds that both have."""
    by_cell: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        cell = by_cell.setdefault((row["network"], f"{row['budget']:g}"), {})
        cell.setdefault(row["contender"], {})[row["seed"]] = row[column][0]
    found: Cells = {}
    for (network, budget), cell in by_cell.items():
        ours = cell.get(OURS, {})
        less = {c: [ours[s] - v for s, v in seeds.items() if s in ours] for c, seeds in cell.items() if c not in {OURS, "dense"}}
        found.setdefault(network, {})[budget] = {c: interval(differences) for c, differences in less.items() if differences}
    return found


def _paired_share(paired: Cells) -> float | None:
    """A single seed has no interval: its low, mean and high are one number, and such a cell does not count."""
    cells = [list(cell.values()) for budgets in paired.values() for cell in budgets.values() if cell]
    known = [cell for cell in cells if all(low < high for _, low, high in cell)]
    return round(sum(all(low > 0 for _, low, _ in cell) for cell in known) / len(known), 3) if known else None


def _others(rows: Sequence[Row]) -> dict[str, Any]:
    """The other parts: mean accuracy by network, budget and criterion, compensation or schedule; correlations of the objective."""
    found: dict[str, Any] = {}
    for part in ("criteria", "compensation"):
        if mine := [r for r in rows if r.get("part") == part]:
            found[part] = _cells(mine, "one_shot")
    if schedules := [r for r in rows if r.get("part") == "schedules"]:
        found["schedules"] = {column: _cells(schedules, column) for column in ("one_shot", "fine_tuned")}
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
