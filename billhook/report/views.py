"""Rows of the report's bars and tables: a record prepared for the template, shares of a track as percentages."""

from collections.abc import Mapping
from dataclasses import dataclass

from . import format as fmt
from .record import AxisRow, Interval, KernelRow, Record


@dataclass(frozen=True, slots=True)
class Bar:
    """A latency bar: its length and its interval as percentages of the track, and its text."""

    length: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """A runtime with its bars for the dense and for the pruned network (either may be missing)."""

    name: str
    ours: bool
    dense: Bar | None
    pruned: Bar | None


@dataclass(frozen=True, slots=True)
class Hero:
    """The headline bar: everything as a percentage of the longer of dense and measured."""

    dense: float
    measured: float
    budget: float
    share_of_dense: str
    speedup: str


@dataclass(frozen=True, slots=True)
class ContenderRow:
    """A network's accuracy and loss over the seeds: means, spreads, and single values as positions on a common scale."""

    name: str
    accuracy: str
    accuracy_spread: str
    accuracy_dots: tuple[float, ...]
    nll: str
    nll_spread: str
    nll_dots: tuple[float, ...]
    latency: str


@dataclass(frozen=True, slots=True)
class KernelLine:
    """A kernel with its shares of the machine's peaks; attained: the larger one, which is its share of the roofline; bound: whose it is."""

    kernel: KernelRow
    of_operations: float | None
    of_memory: float | None
    attained: float | None
    bound: str


@dataclass(frozen=True, slots=True)
class FrozenRow:
    """A reason, and the axes that it freezes."""

    why: str
    names: tuple[str, ...]


def hero(record: Record) -> Hero:
    """Lengths and ratios of the headline."""
    dense = record.dense_s[record.best_dense]
    longest = max(dense, record.measured_s, record.budget_s)
    return Hero(
        _share(dense, longest),
        _share(record.measured_s, longest),
        _share(record.budget_s, longest),
        fmt.percent(record.measured_s / dense),
        f"{dense / record.measured_s:.2f}×",
    )


def runtime_rows(record: Record) -> tuple[list[RuntimeRow], float]:
    """A row per runtime, ours first and then the fastest first, and the position of the budget on the same scale."""
    highs = [i[1] for m in (record.dense_interval_s, record.pruned_interval_s) for i in m.values()]
    longest = max([*record.dense_s.values(), *record.pruned_s.values(), *highs, record.budget_s])
    names = sorted({*record.dense_s, *record.pruned_s}, key=lambda n: (n != record.ours, _best(record, n)))
    rows = [
        RuntimeRow(
            name,
            name == record.ours,
            _bar(name, record.dense_s, record.dense_interval_s, longest),
            _bar(name, record.pruned_s, record.pruned_interval_s, longest),
        )
        for name in names
    ]
    return rows, _share(record.budget_s, longest)


def _best(record: Record, name: str) -> float:
    return min(m[name] for m in (record.dense_s, record.pruned_s) if name in m)


def _bar(name: str, seconds: Mapping[str, float], intervals: Mapping[str, Interval], longest: float) -> Bar | None:
    if name not in seconds:
        return None
    low, high = intervals.get(name, (seconds[name], seconds[name]))
    return Bar(_share(seconds[name], longest), _share(low, longest), _share(high, longest), fmt.seconds(seconds[name]))


def contender_rows(record: Record) -> list[ContenderRow]:
    """A row per network that has an accuracy or a loss, in the record's order."""
    names = list(dict.fromkeys([*record.accuracy, *record.nll]))
    accuracies, losses = _positions(record.accuracy, record.accuracy_by_seed), _positions(record.nll, record.nll_by_seed)
    return [
        ContenderRow(
            name,
            fmt.percent(record.accuracy[name], 2) if name in record.accuracy else "–",
            _spread(record.accuracy_by_seed.get(name, ()), 100, 2),
            accuracies.get(name, ()),
            f"{record.nll[name]:.4f}" if name in record.nll else "–",
            _spread(record.nll_by_seed.get(name, ()), 1, 4),
            losses.get(name, ()),
            fmt.seconds(record.contender_s[name]) if name in record.contender_s else "–",
        )
        for name in names
    ]


def _positions(means: Mapping[str, float], by_seed: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    values = {name: by_seed.get(name) or (mean,) for name, mean in means.items()}
    everything = [v for group in values.values() for v in group]
    if not everything:
        return {}
    low, span = min(everything), max(everything) - min(everything)
    return {name: tuple(4 + 92 * ((v - low) / span if span else 0.5) for v in group) for name, group in values.items()}


def _spread(values: tuple[float, ...], factor: float, digits: int) -> str:
    """Half of the range between the seeds: three values bear no standard deviation."""
    return f"± {(max(values) - min(values)) / 2 * factor:.{digits}f}" if len(values) > 1 else ""


def frozen_rows(axes: tuple[AxisRow, ...]) -> list[FrozenRow]:
    """Axes that may not be cut, grouped by the reason, largest group first."""
    groups: dict[str, list[str]] = {}
    for axis in axes:
        if not axis.prunable:
            groups.setdefault(axis.frozen_because or "no reason was recorded", []).append(axis.name)
    rows = [FrozenRow(why, tuple(names)) for why, names in groups.items()]
    return sorted(rows, key=lambda row: (-len(row.names), row.why))


def kernel_lines(record: Record) -> list[KernelLine]:
    """Kernels in the order in which they matter, each against the machine's peaks."""
    return [_kernel_line(kernel, record) for kernel in sorted(record.kernels, key=lambda k: -k.measured_s)]


def _kernel_line(kernel: KernelRow, record: Record) -> KernelLine:
    operations, data = _of_peak(kernel.gflops, record.peak_gflops), _of_peak(kernel.gbytes, record.peak_gbytes)
    known = [share for share in (operations, data) if share is not None]
    bound = "" if operations is None or data is None else "operations" if operations >= data else "memory"
    return KernelLine(kernel, operations, data, max(known, default=None), bound)


def _of_peak(achieved: float | None, peak: float | None) -> float | None:
    return achieved / peak if achieved is not None and peak is not None else None


def roofline(lines: list[KernelLine]) -> float | None:
    """Share of the kernels' time that a machine running at its peaks would need: their mean, weighted by time."""
    known = [(line.kernel.measured_s, line.attained) for line in lines if line.attained is not None]
    total = sum(seconds for seconds, _ in known)
    return sum(seconds * share for seconds, share in known) / total if total else None


def kernel_error(kernels: tuple[KernelRow, ...]) -> float:
    """Mean absolute error of the prediction over the kernels, weighted by measured time, as a share."""
    total = sum(k.measured_s for k in kernels)
    return sum(abs(k.predicted_s - k.measured_s) for k in kernels) / total if total else 0.0


def _share(value: float, whole: float) -> float:
    return round(100 * value / whole, 3)
