"""The suites' statistics, on rows that are made up so that the answers are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.closed_loop import summary as closed_loop
from benchmarks.prediction import summary as prediction
from benchmarks.rows import Rows, write_record
from benchmarks.tuning_cost import summary as tuning_cost


def _latency(seconds: float, width: float = 0.0) -> dict[str, float]:
    return {"seconds": seconds, "low": seconds * (1 - width), "high": seconds * (1 + width)}


def _predicted(role: str, index: int, true: float, off: float = 0.0, share: float = 0.5) -> dict[str, Any]:
    """A row of which the surfaces say a share of what is measured, and `off` more, give or take 2%."""
    width = 0.02
    return {
        "network": "net",
        "threads": 1,
        "role": role,
        "index": index,
        "kind": "independent" if index % 2 else "level",
        "surfaces": _latency(true * share * (1 + off), width),
        "kernels": _latency(true / 2, width),
        "table_sum": true / 2,
        "flops": 1e9 * true**2,
        "measured": _latency(true),
    }


def test_calibration_takes_what_is_systematic_and_leaves_the_rest() -> None:
    rows = [_predicted("dense", 0, 1.0), *(_predicted("evaluation", i, t, off) for i, (t, off) in enumerate([(0.4, 0.1), (0.6, -0.1)]))]
    summary = prediction.summarise(rows)
    judged = summary["networks"]["net t1"]["predictors"]
    assert summary["mape"] == pytest.approx(0.1)
    assert judged["surfaces, dense only"]["bias"] == pytest.approx(0.0, abs=1e-9)
    assert judged["kernels"]["mape"] == 0.0
    assert judged["table sum"]["mape"] == 0.5  # nothing corrects the plain sum
    assert judged["flops"]["mape"] == pytest.approx((0.6 + 0.4) / 2)  # quadratic: scaled at 1.0, they say 0.16 and 0.36


def test_order_is_judged_apart_from_size() -> None:
    trues = [0.3, 0.4, 0.5, 0.6]
    rows = [_predicted("dense", 0, 1.0), *(_predicted("evaluation", i, t) for i, t in enumerate(trues))]
    assert prediction.summarise(rows)["kendall_tau"] == 1.0
    rows[1]["surfaces"], rows[4]["surfaces"] = rows[4]["surfaces"], rows[1]["surfaces"]
    assert prediction.summarise(rows)["kendall_tau"] == pytest.approx(-2 / 3, abs=1e-4)  # 5 of 6 pairs turned round
    assert prediction.kendall_tau([1.0, 1.0], [1.0, 2.0]) is None


def test_coverage_counts_the_measurements_inside() -> None:
    offs = [0.0, 0.01, 0.4, -0.4]
    rows = [_predicted("dense", 0, 1.0, share=1.0), *(_predicted("evaluation", i, 0.5, off, 1.0) for i, off in enumerate(offs))]
    assert prediction.summarise(rows)["interval_coverage"] == 0.5


def test_a_network_without_judged_rows_says_nothing() -> None:
    summary = prediction.summarise([_predicted("dense", 0, 1.0), _predicted("calibration", 0, 0.5)])
    assert summary["mape"] is None
    assert summary["networks"] == {}


def _loop(budget: float, deviation: float, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"network": "net", "threads": 1, "budget": budget, "deviation": deviation, "too_noisy": False}
    return {**row, "rounds": [{"predicted": _latency(1.0), "measured": _latency(1.02)}] * rounds}


def test_the_worst_deviation_has_either_sign_and_a_missed_budget_is_named() -> None:
    missed = {"network": "net", "threads": 1, "budget": 0.01, "missed": "no plan"}
    summary = closed_loop.summarise([_loop(0.3, -0.04, 1), _loop(0.5, 0.01, 3), missed])
    assert summary["worst_deviation"] == 0.04
    assert summary["rounds_max"] == 3
    assert summary["above_budget"] == 1
    assert summary["within_3_percent"] == "1 of 3"
    assert summary["missed"] == {"net t1 1%": "no plan"}
    assert summary["first_prediction_error_median"] == pytest.approx(0.02)


def _table(part: str, seconds: float, pairs: list[list[float]]) -> dict[str, Any]:
    return {"suite": "table", "part": part, "table_seconds": seconds, "pairs": pairs}


def test_tables_are_judged_by_the_pairs_that_both_have() -> None:
    rows = [
        _table("all candidates", 200.0, [[8, 8, 1.0], [8, 16, 2.0], [16, 8, 4.0]]),
        _table("replay", 50.0, [[8, 8, 1.1], [8, 16, 2.0], [16, 8, 3.9], [16, 16, 9.0]]),
        _table("generic replay", 60.0, [[8, 8, 1.5], [8, 16, 1.0]]),
        _table("generic tuned 8x8", 20.0, [[8, 8, 1.0]]),
        {"suite": "reuse", "part": "a, then b", "first": "a", "second": "b", "hit_rate": 0.75},
    ]
    summary = tuning_cost.summarise(rows)
    assert summary["replay_seconds_200"] == 50.0
    assert summary["replay_error_median"] == pytest.approx(0.025)
    assert summary["replay_loss_median"] == pytest.approx(0.0)
    assert summary["generic_replay_loss_median"] == pytest.approx(0.5)
    assert summary["surface_error_median"] is None
    assert summary["hit_rate_second_model"] == 0.75


def test_rows_survive_an_interrupt_and_the_last_of_equal_keys_counts(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl", ("case",))
    rows.add({"case": "a", "seconds": 1.0})
    rows.add({"case": "b", "seconds": 2.0})
    rows.add({"case": "a", "seconds": 3.0})
    with rows.path.open("a") as file:
        file.write('{"case": "c", "sec')
    assert rows.read() == [{"case": "a", "seconds": 3.0}, {"case": "b", "seconds": 2.0}]
    assert rows.find(case="a") == {"case": "a", "seconds": 3.0}
    assert rows.find(case="c") is None
    path = write_record("suite", {"worst": 1}, rows.read(), tmp_path)
    record = json.loads(path.read_text())
    assert record["summary"] == {"worst": 1}
    assert record["environment"]["cpu"]
