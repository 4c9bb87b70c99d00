"""Write a measured table of README.md from a record: of the demo, or of the suite benchmarks.kernels.

python tools/measured_table.py out/demo/record.json
python tools/measured_table.py benchmarks/results/kernels/NAME.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from billhook.report import Record, read_record
from billhook.report.format import percent, seconds
from billhook.report.record import Interval, write_whole

BEGIN, END = "<!-- measured:begin, written by tools/measured_table.py -->", "<!-- measured:end -->"
KERNELS_BEGIN, KERNELS_END = "<!-- kernels:begin, written by tools/measured_table.py -->", "<!-- kernels:end -->"
README = Path(__file__).resolve().parents[1] / "README.md"


def table(record: Record) -> str:
    """Latency with interval per runtime and accuracy with its spread, dense and pruned, and what it was measured on."""
    lines = [f"| {record.model or 'network'} | dense | pruned |", "|---|---|---|"]
    for name in sorted({*record.dense_s, *record.pruned_s}, key=lambda name: (name != record.ours, name)):
        dense = _latency(name, record.dense_s, record.dense_interval_s)
        pruned = _latency(name, record.pruned_s, record.pruned_interval_s)
        lines.append(f"| {'**' + name + '**' if name == record.ours else name} | {dense} | {pruned} |")
    if {"dense", "pruned"} <= set(record.accuracy):
        lines.append(f"| accuracy | {_accuracy(record, 'dense')} | {_accuracy(record, 'pruned')} |")
    if "uniform" in record.accuracy:
        lines.append(f"| accuracy at uniform width, equal latency | | {_accuracy(record, 'uniform')} |")
    verdict = f"Budget {seconds(record.budget_s)}, measured {seconds(record.measured_s)}: {'met' if record.met else 'missed'}"
    facts = [verdict, f"allocation within {percent(record.allocation_gap, 3)} of the optimum", record.target]
    facts += [f"{name} {value}" for name, value in record.environment.items() if value not in {"", "unknown"}]
    facts += [", ".join(f"{name} {version}" for name, version in record.versions.items()), record.created]
    return "\n".join([*lines, "", "; ".join(fact for fact in facts if fact) + "."])


def kernels_table(record: Mapping[str, Any]) -> str:
    """Milliseconds of dense networks at batch 1 by runtime, the fastest seen, and ours over the best peer."""
    rows = [r for r in record["rows"] if r["batch"] == 1 and (r["precision"], r["variant"]) == ("float32", "dense")]
    names = [n for n in dict.fromkeys(n for r in rows for n in r["runtimes"]) if n != "torch eager channels-last"]
    lines = [f"| network | threads | {' | '.join(names)} | ours / best peer |", "|---" * (len(names) + 3) + "|"]
    for row in sorted(rows, key=lambda r: (r["model"], r["threads"])):
        times = [f"{row['runtimes'][n]['seconds'] * 1e3:.1f}" if n in row["runtimes"] else "–" for n in names]
        ratio = record["summary"]["ratio_to_best_peer"][row["model"]][str(row["threads"])]
        lines.append(f"| {row['model']} | {row['threads']} | {' | '.join(times)} | {ratio:.2f} |")
    environment = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return "\n".join([*lines, "", f"Milliseconds, 224x224, batch 1, float32; {environment['cpu']}; {versions}; {environment['date']}."])


def _latency(name: str, values: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    if name not in values:
        return "–"
    low, high = intervals.get(name, (values[name], values[name]))
    return f"{seconds(values[name])} ({seconds(low)} to {seconds(high)})" if high > low else seconds(values[name])


def _accuracy(record: Record, name: str) -> str:
    seeds = record.accuracy_by_seed.get(name, ())
    spread = f" ({percent(min(seeds), 2)} to {percent(max(seeds), 2)}, {len(seeds)} seeds)" if len(seeds) > 1 else ""
    return percent(record.accuracy[name], 2) + spread


def replace_section(text: str, content: str, begin: str = BEGIN, end: str = END) -> str:
    """A README text with the section between two marks replaced.

    Raises:
        ValueError: it has no such section.
    """
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"no section between {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def main(path: Path) -> None:
    """Put the table of one record into README.md."""
    text, record = README.read_text(encoding="utf-8"), json.loads(path.read_text(encoding="utf-8"))
    if "ratio_to_best_peer" in record.get("summary", {}):
        write_whole(README, replace_section(text, kernels_table(record), KERNELS_BEGIN, KERNELS_END))
    else:
        write_whole(README, replace_section(text, table(read_record(path))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
