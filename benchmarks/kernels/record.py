"""Rows on disk while the suite runs, and the record that is written from them."""

import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from billhook.compiler.compare import OURS
from billhook.costmodel.machine import Machine, this_machine

from .case import DENSE, PRECISIONS, PRUNED, Case
from .quantised import INT8_PEERS

HOME = Path(__file__).parents[1] / "results" / "kernels"
ROWS = Path("out") / "kernels" / "rows.jsonl"
REDUCED = {"bfloat16": ("OpenVINO default precision",), "int8": tuple(INT8_PEERS)}  # the peers that compute in these
_SHORT = {dtype: name for name, dtype in PRECISIONS.items()}
PACKAGES = ("torch", "torchvision", "apache-tvm", "onnxruntime", "openvino", "numpy", "billhook")


def read_rows(path: Path = ROWS) -> dict[str, dict[str, Any]]:
    """The last row of every case."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    return {str(_case(r)): r for r in rows}


def _case(row: dict[str, Any]) -> Case:
    return Case(row["model"], row["threads"], row["batch"], _SHORT[row["precision"]], row["variant"])


def add_row(row: dict[str, Any], path: Path = ROWS) -> None:
    """Append a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def best_peer(row: dict[str, Any]) -> tuple[str, float]:
    """Name and seconds of the fastest runtime that is not ours and computes in the same precision."""
    return min(_peers(row).items(), key=lambda item: item[1])


def _peers(row: dict[str, Any]) -> dict[str, float]:
    """Seconds of the runtimes that compute in the row's precision, without ours."""
    same = REDUCED.get(row["precision"])
    return {name: t["seconds"] for name, t in row["runtimes"].items() if name != OURS and (same is None or name in same)}


def _has_peer(row: dict[str, Any]) -> bool:
    return bool(_peers(row))


def ratio(row: dict[str, Any]) -> float:
    """Our latency over the fastest peer's of the same precision: below one we are faster."""
    return row["runtimes"][OURS]["seconds"] / best_peer(row)[1]


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The numbers that the suite is judged by; None for what was not measured. Networks at batch 1 count, each thread count once."""
    comparable = [r for r in rows if r["batch"] == 1 and _has_peer(r)]
    table = [r for r in comparable if r["precision"] == "float32" and r["variant"] == DENSE]
    pruned = [ratio(r) for r in comparable if r["precision"] == "float32" and r["variant"] == PRUNED]
    reduced = {p: [ratio(r) for r in comparable if r["precision"] == p and r["variant"] == DENSE] for p in REDUCED}
    ratios: dict[str, dict[str, float]] = {}
    for row in table:
        ratios.setdefault(row["model"], {})[str(row["threads"])] = round(ratio(row), 4)
    found = [r for by_threads in ratios.values() for r in by_threads.values()]
    by_kernels = [r["build_seconds"] for r in comparable if r["kernels_measured"]]
    return {
        "ratio_to_best_peer": ratios,
        "ratio_median": _median(found),
        "ratio_max": max(found, default=None),
        "pruned_ratio_median": _median(pruned),
        "bf16_ratio_median": _median(reduced["bfloat16"]),
        "int8_ratio_median": _median(reduced["int8"]),
        "build_seconds_max": round(max(by_kernels, default=0.0), 1) or None,
    }


def _median(ratios: list[float]) -> float | None:
    return round(statistics.median(ratios), 4) if ratios else None


def write_record(rows: Iterable[dict[str, Any]], home: Path = HOME) -> Path:
    """Write results/kernels/<machine>-<date>.json: environment, summary, rows in order of case."""
    table, machine = list(rows), this_machine(PACKAGES)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    environment = {"date": date, **asdict(machine), "versions": dict(machine.versions)}
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{slug(machine)}-{date}.json"
    path.write_text(json.dumps({"environment": environment, "summary": summarise(table), "rows": table}, indent=1) + "\n", encoding="utf-8")
    return path


def slug(machine: Machine) -> str:
    """The processor's model as part of a file name."""
    name = re.sub(r"\(.*?\)|[0-9/]+$|processor|cpu", "", machine.cpu.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown"


def line(row: dict[str, Any]) -> str:
    """A row in one line: milliseconds of every runtime, and the ratio to the best peer."""
    times = ", ".join(f"{name} {timing['seconds'] * 1e3:.2f}" for name, timing in row["runtimes"].items())
    verdict = f"{ratio(row):.3f}x of {best_peer(row)[0]}" if _has_peer(row) else "no peers"
    return f"{_case(row)}: {times} ms; {verdict}; built in {row['build_seconds']:.0f} s"
