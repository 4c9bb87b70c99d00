"""The accuracy suite's own parts: equal latency, and what the summary says of rows that are made up."""

from typing import Any

import pytest

from benchmarks.accuracy.aim import CLOSE, nearest
from benchmarks.accuracy.summary import summarise
from billhook.ir.errors import BudgetError


def _row(contender: str, seed: int, accuracy: float, share: float = 0.5) -> dict[str, Any]:
    scores = {"one_shot": [accuracy - 0.1, 1.0], "fine_tuned": [accuracy, 1.0]}
    identity = {"part": "presets", "network": "net", "seed": seed, "budget": 0.5, "contender": contender}
    return {**identity, **scores, "expected_share": share, "sizes": {"a": round(1000 * share)}}


def test_a_setting_is_found_whose_latency_is_the_wanted_one() -> None:
    assert nearest(lambda s: s, lambda made: made**2, 0.5, 0.5, 0.0, 1.0) ** 2 == pytest.approx(0.5, rel=CLOSE)


def test_coarse_widths_give_the_slower_neighbour() -> None:
    assert nearest(lambda s: round(4 * s) / 4, lambda made: made, 0.6, 0.6, 0.0, 1.0) == 0.75


def test_settings_that_a_method_believes_impossible_are_passed_over() -> None:
    def make(setting: float) -> float:
        if setting < 0.7:
            raise BudgetError("too fast")
        return setting - 0.3

    assert nearest(make, lambda made: made, 0.5, 0.5, 0.0, 1.0) == pytest.approx(0.5, rel=CLOSE)
    with pytest.raises(BudgetError, match="no setting"):
        nearest(lambda _: make(0.0), lambda made: made, 0.5, 0.5, 0.0, 1.0)


def test_ours_is_best_only_outside_the_intervals() -> None:
    ours = [_row("ours", s, 0.90 + 0.001 * s) for s in range(3)]
    clear = [_row("halp", s, 0.80 + 0.001 * s) for s in range(3)]
    close = [_row("mdp", s, 0.899 + 0.01 * s) for s in range(3)]
    assert summarise(ours + clear)["ours_best_share"] == 1.0
    assert summarise(ours + clear + close)["ours_best_share"] == 0.0


def test_a_faster_network_is_no_equal_contender_and_a_slower_one_has_the_advantage() -> None:
    ours, fast, slow = _row("ours", 0, 0.9), _row("halp", 0, 0.95, 0.4), _row("mdp", 0, 0.8, 0.6)
    summary = summarise([ours, fast, slow])
    assert summary["off_budget"] == ["net 50% halp seed 0"]
    assert set(summary["accuracy"]["net"]["0.5"]) == {"ours", "mdp"}
    late = summarise([_row("ours", 0, 0.9, 0.6), slow])
    assert late["ours_best_share"] is None  # ours itself missed its budget


def test_measured_shares_replace_expected_ones() -> None:
    ours, other = _row("ours", 0, 0.9), _row("halp", 0, 0.8, 0.49)
    summary = summarise([ours, other], [{"network": "net", "sizes": other["sizes"], "share": [0.45, 0.44, 0.46]}])
    assert summary["off_budget"] == ["net 50% halp seed 0"]
    assert summary["built"]["rows"] == 1
    assert summary["built"]["largest_error"] == pytest.approx(0.49 / 0.45 - 1, rel=0.2)
