"""The record: environment, rows, and a summary that says what was measured and what was not."""

import json
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1] / "results" / "cuda"
_PACKAGES = ("torch", "apache-tvm", "numpy", "triton")
OURS = "billhook float32 graph"


def write_record(static: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]], gpu: dict[str, Any] | None, why_not: str) -> Path:
    """Write results/cuda/<machine>-<date>.json. gpu: None if nothing was measured, for the reason `why_not`."""
    environment = {"machine": platform.machine(), "python": platform.python_version(), "packages": _versions(), "gpu": gpu}
    record = {
        "environment": environment,
        "summary": {"measured": gpu is not None, "why_not": why_not, **_static(static), **_ratios(measured)},
        "static": list(static),
        "rows": list(measured),
    }
    name = gpu["name"].lower().replace(" ", "-") if gpu else "no-gpu"
    HOME.mkdir(parents=True, exist_ok=True)
    path = HOME / f"{name}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _static(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {}
    return {
        "programs": len(rows),
        "build_seconds_max": max(r["build_seconds"] for r in rows),
        "spilled_bytes_max": max(r["spilled_bytes_max"] for r in rows),
    }


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our time over the fastest correct peer's, at our precision and at any; above 1 we are slower."""
    ratios: dict[str, dict[str, float]] = {"ratio_to_best_float32_peer": {}, "ratio_to_best_peer": {}}
    for case in dict.fromkeys(r["case"] for r in rows):
        timed = {r["name"]: r["seconds"] for r in rows if r["case"] == case and r.get("correct") and "seconds" in r}
        if OURS not in timed:
            continue
        peers = {n: s for n, s in timed.items() if not n.startswith("billhook")}
        same = [s for n, s in peers.items() if " float32" in n]
        if same:
            ratios["ratio_to_best_float32_peer"][case] = timed[OURS] / min(same)
            ratios["ratio_to_best_peer"][case] = timed[OURS] / min(peers.values())
    medians = {f"{name}_median": statistics.median(found.values()) for name, found in ratios.items() if found}
    wrong = sorted(f"{r['case']}: {r['name']}" for r in rows if not r.get("correct", True))
    return {**ratios, **medians, "wrong": wrong} if rows else {}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
