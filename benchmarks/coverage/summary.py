"""Counts over rows: what the record states first."""

import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Per set: models, exported, cut, oracle_ok, trained, compiled, wrong; and the median prunable share."""
    table = list(rows)
    return {
        "coverage": {name: _counts([r for r in table if r["set"] == name]) for name in sorted({r["set"] for r in table})},
        "prunable_share_median": _median([r["prunable_share"] for r in table if r["axes"]]),
        "frozen": dict(_frozen(table).most_common()),
        "failures": {f"{r['set']}/{r['model']}": f"{r['stage']}: {r['error'][:300]}" for r in table if r["stage"] != "done"},
        "wrong": [f"{r['set']}/{r['model']}" for r in table if r["wrong"]],
        "every_axis": {name: _alone([r for r in table if r["set"] == name]) for name in sorted({r["set"] for r in table})},
    }


def _alone(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Axes cut alone and compared with their mask: how many of how many, in how many models, and what was found."""
    tried = [r["every_axis"] for r in rows if "checked" in r.get("every_axis", {})]
    return {
        "models": len(rows),
        "models_tried": len(tried),
        "models_complete": sum(r["stage"] == "done" for r in tried),
        "axes": sum(r["prunable"] for r in rows),
        "axes_checked": sum(r["checked"] for r in tried),
        "cut_to_nothing": sum(r.get("vanished", 0) for r in tried),
        "combinations": sum(r.get("combinations", 0) for r in tried),
        "unseen": sum(len(r.get("unseen", [])) for r in tried),
        "wrong": sum(len(r.get("wrong", [])) for r in tried),
        "worst_error": max((r.get("worst_error", 0.0) for r in tried), default=0.0),
    }


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "models": len(rows),
        "exported": sum(r["nodes"] > 0 for r in rows),
        "cut": sum(r["cut"] for r in rows),
        "oracle_ok": sum(r["oracle_ok"] for r in rows),
        "trained": sum(r["trained"] for r in rows),
        "compiled": sum(r["compiled"] == "yes" for r in rows),
        "wrong": sum(r["wrong"] for r in rows),
        "prunable_share_median": _median([r["prunable_share"] for r in rows if r["axes"]]),
    }


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 4) if values else None


def _frozen(rows: list[dict[str, Any]]) -> Counter[str]:
    """Axes frozen by each operator and reason, over all models."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row["frozen"])
    return total
