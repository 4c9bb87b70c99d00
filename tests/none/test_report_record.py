"""Records: what they refuse, what they derive, and that writing is all or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_record import synthetic_record

from billhook.ir.errors import OptionError
from billhook.report import parse_record, read_record, write_record

DEMANDED = ("budget_s", "measured_s", "predicted_s", "dense_s", "pruned_s", "accuracy", "nll", "allocation_gap", "seconds_total")


def test_round_trip(tmp_path: Path) -> None:
    record = parse_record(synthetic_record())
    write_record(record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
    data = json.loads((tmp_path / "record.json").read_text())
    assert {*DEMANDED, "peak_rss_bytes", "seeds", "versions"} <= set(data)


@pytest.mark.parametrize(("measured", "met"), [(0.00592, True), (0.00592 * 1.0299, True), (0.00592 * 1.0301, False)])
def test_met_is_the_budget_with_its_tolerance(measured: float, met: bool) -> None:
    assert parse_record(synthetic_record() | {"measured_s": measured}).met is met


def test_the_baseline_is_the_fastest_dense_runtime() -> None:
    assert parse_record(synthetic_record() | {"dense_s": {"a": 2.0, "b": 1.5, "c": 3.0}}).best_dense == "b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this Billhook reads 1"),
        ({"measured_s": -1.0}, "measured_s: .*greater than 0"),
        ({"measured_s": float("nan")}, "measured_s: .*finite"),
        ({"dense_s": {}}, "without a dense baseline"),
        ({"dense_s": {"a": "quick"}}, "dense_s.a: .*valid number"),
        ({"axes": [{"name": "x", "size": 4, "kept": 5}]}, "axes.0: .*keeps 5 of 4"),
        ({"latnecy": 1}, "latnecy: Extra inputs"),
    ],
)
def test_refuses_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_record(synthetic_record() | changes)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[1]", "no JSON object"), ("{}", "Field required \\(and")])
def test_refuses_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "record.json"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        write_record(parse_record(synthetic_record()), folder)
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
