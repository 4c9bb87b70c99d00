"""Write the measured table of README.md from a record: python tools/measured_table.py out/demo/record.json."""

import sys
from collections.abc import Mapping
from pathlib import Path

from billhook.report import Record, read_record
from billhook.report.format import percent, seconds
from billhook.report.record import Interval, write_whole

BEGIN = "<!-- measured:begin, written by tools/measured_table.py -->"
END = "<!-- measured:end -->"
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
    facts += [*record.environment.values(), record.created]
    return "\n".join([*lines, "", "; ".join(fact for fact in facts if fact) + "."])


def _latency(name: str, values: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    if name not in values:
        return "–"
    low, high = intervals.get(name, (values[name], values[name]))
    return f"{seconds(values[name])} ({seconds(low)} to {seconds(high)})" if high > low else seconds(values[name])


def _accuracy(record: Record, name: str) -> str:
    seeds = record.accuracy_by_seed.get(name, ())
    spread = f" ({percent(min(seeds), 2)} to {percent(max(seeds), 2)}, {len(seeds)} seeds)" if len(seeds) > 1 else ""
    return percent(record.accuracy[name], 2) + spread


def replace_section(text: str, content: str) -> str:
    """A README text with the marked section replaced.

    Raises:
        ValueError: it has no such section.
    """
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"no section between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


if __name__ == "__main__":
    write_whole(README, replace_section(README.read_text(encoding="utf-8"), table(read_record(Path(sys.argv[1])))))
