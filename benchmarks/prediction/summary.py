"""What the rows say: error, rank correlation and coverage of every predictor, per network and over all."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from scipy import stats

from billhook.costmodel.calibration import UNCALIBRATED, Calibration, calibrate
from billhook.ir.latency import Latency

Row: TypeAlias = Mapping[str, Any]
NOMINAL = 0.95  # of the intervals
HEADLINE = "surfaces"
_GIGA = 1e-9  # seconds per operation that FLOPs are counted as before they are scaled


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """The suite's summary: means over the networks, of the error over all assignments of all networks.

    Predictors: "surfaces" is the compiler's, which knows nothing of these widths but the anchors of its surfaces, calibrated
    on the dense network and the assignments left out of the evaluation; "surfaces, dense only" is calibrated on the dense
    network alone; "kernels" has in addition measured the assignment's kernels one by one, as the closed loop does with the plan
    that it chose; "table sum" adds these up and nothing else; "flops" is calibrated like the first.
    """
    networks: dict[str, list[Row]] = {}
    for row in rows:
        networks.setdefault(f"{row['network']} t{row['threads']}", []).append(row)
    found = {name: judged for name, group in networks.items() if (judged := _network(group))}
    head = {name: judged["predictors"][HEADLINE] for name, judged in found.items()}
    counted = sum(j["assignments"] for j in found.values())
    return {
        "mape": _mean(head.values(), "mape", [j["assignments"] for j in found.values()]),
        "kendall_tau": _mean(head.values(), "kendall_tau"),
        "kendall_tau_min": min((h["kendall_tau"] for h in head.values() if h["kendall_tau"] is not None), default=None),
        "interval_coverage": _mean(head.values(), "interval_coverage", [j["assignments"] for j in found.values()]),
        "interval_nominal": NOMINAL,
        "assignments": counted,
        "predictor": f"{HEADLINE}, before the assignment's kernels are measured; calibrated on the dense network and left-out assignments",
        "networks": found,
    }


def _network(rows: Sequence[Row]) -> dict[str, Any]:
    """One network; empty until there are two assignments to judge by."""
    dense = [r for r in rows if r["role"] == "dense"]
    known = [*dense, *(r for r in rows if r["role"] == "calibration")]
    judged = [r for r in rows if r["role"] == "evaluation"]
    if not dense or len(judged) < 2:
        return {}
    predictors: dict[str, tuple[Callable[[Row], Latency], Sequence[Row]]] = {
        HEADLINE: (lambda r: _latency(r["surfaces"]), known),
        "surfaces, dense only": (lambda r: _latency(r["surfaces"]), dense),
        "kernels": (lambda r: _latency(r["kernels"]), known),
        "table sum": (lambda r: _point(r["table_sum"]), ()),
        "flops": (lambda r: _point(r["flops"] * _GIGA), known),
    }
    return {
        "assignments": len(judged),
        "calibration": len(known) - len(dense),
        "dense_seconds": dense[0]["measured"]["seconds"],
        "range": [min(_measured(r) for r in judged), max(_measured(r) for r in judged)],
        "predictors": {name: judge(judged, predict, based_on) for name, (predict, based_on) in predictors.items()},
        "kinds": {
            kind: judge(some, *predictors[HEADLINE])["mape"]
            for kind in sorted({r["kind"] for r in judged})
            if (some := [r for r in judged if r["kind"] == kind])
        },
    }


def judge(rows: Sequence[Row], predict: Callable[[Row], Latency], known: Sequence[Row]) -> dict[str, Any]:
    """MAPE, signed bias, Kendall's tau (b) and the share of measurements inside the intervals; `known` calibrates."""
    calibration: Calibration = calibrate([(predict(r), _latency(r["measured"])) for r in known]) if known else UNCALIBRATED
    predicted = [calibration.apply(predict(r)) for r in rows]
    measured = [_measured(r) for r in rows]
    off = [p.seconds / m - 1 for p, m in zip(predicted, measured, strict=True)]
    inside = [p.low <= m <= p.high for p, m in zip(predicted, measured, strict=True)]
    tau = kendall_tau([p.seconds for p in predicted], measured)
    return {
        "mape": round(fmean(map(abs, off)), 4),
        "bias": round(fmean(off), 4),
        "worst": round(max(off, key=abs), 4),
        "kendall_tau": tau,
        "interval_coverage": round(fmean(inside), 4) if any(p.high > p.low for p in predicted) else None,
        "interval_width": round(fmean((p.high - p.low) / p.seconds for p in predicted), 4),
    }


def kendall_tau(predicted: Sequence[float], measured: Sequence[float]) -> float | None:
    """Kendall's rank correlation (tau b); None where fewer than two values, or ties only, leave no order."""
    untyped: Any = stats
    tau = float(untyped.kendalltau(predicted, measured).statistic) if len(predicted) > 1 else math.nan
    return None if math.isnan(tau) else round(tau, 4)


def _mean(found: Iterable[Mapping[str, Any]], key: str, weights: Sequence[int] | None = None) -> float | None:
    values = [f[key] for f in found if f[key] is not None]
    if not values:
        return None
    return round(fmean(values, weights), 4) if weights is not None and len(weights) == len(values) else round(fmean(values), 4)


def _measured(row: Row) -> float:
    return float(row["measured"]["seconds"])


def _latency(packed: Mapping[str, float]) -> Latency:
    return Latency(packed["seconds"], packed["low"], packed["high"], "host")


def _point(seconds: float) -> Latency:
    return Latency(seconds, seconds, seconds, "static")
