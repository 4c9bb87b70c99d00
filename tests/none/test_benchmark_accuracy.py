"""The accuracy suite's own parts: equal latency, and what the summary says of rows that are made up."""

from typing import Any

import pytest

from benchmarks.accuracy.aim import CLOSE, EQUAL, at_measured, nearest
from benchmarks.accuracy.summary import summarise
from billhook.ir.errors import BudgetError


def _row(contender: str, seed: int, accuracy: float, share: float = 0.5) -> dict[str, Any]:
    scores = {"one_shot": [accuracy - 0.1, 1.0], "fine_tuned": [accuracy, 1.0]}
    identity = {"part": "presets", "network": "net", "seed": seed, "budget": 0.5, "contender": contender}
    return {**identity, **scores, "share": share, "predicted_share": share / 0.9, "sizes": {"a": round(1000 * share)}}


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
    assert summary["off_budget"] == {"net 50% halp seed 0": 0.4}
    assert summary["slower"] == {"net 50% mdp seed 0": 0.6}
    assert set(summary["accuracy"]["net"]["0.5"]) == {"ours", "mdp"}
    late = summarise([_row("ours", 0, 0.9, 0.6), slow])
    assert late["ours_best_share"] is None  # ours itself missed its budget


def test_ours_faster_than_its_budget_has_the_disadvantage() -> None:
    summary = summarise([_row("ours", 0, 0.9, 0.4), _row("mdp", 0, 0.8)])
    assert summary["off_budget"] == {}
    assert summary["ours_first_share"] == 1.0


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by much, ours and the other on the same seed by little: the intervals overlap, that of the difference excludes 0."""
    ours = [_row("ours", s, 0.7 + 0.1 * s + 0.020 + 0.001 * s) for s in range(3)]
    other = [_row("mdp", s, 0.7 + 0.1 * s) for s in range(3)]
    summary = summarise(ours + other)
    assert summary["ours_best_share"] == 0.0
    assert summary["ours_paired_share"] == 1.0
    assert summarise([*ours, *other, _row("halp", 0, 0.1)])["ours_paired_share"] is None  # one seed has no interval
    mean, low, high = summary["ours_paired"]["net"]["0.5"]["mdp"]
    assert (mean, low > 0.015, high < 0.027) == (pytest.approx(0.021), True, True)
    assert summary["predicted"]["rows"] == 6
    assert summary["predicted"]["mean_error"] == pytest.approx(1 / 9, rel=0.01)


def test_networks_are_built_until_the_measured_latency_is_the_wanted_one() -> None:
    found = at_measured(lambda aim: aim, lambda made: made, lambda made: 0.8 * made, 0.5, 1.0, faster=False)
    assert 0.8 * found == pytest.approx(0.5, rel=EQUAL)


@pytest.mark.parametrize(("faster", "wanted"), [(False, 0.6), (True, 0.4)])
def test_coarse_networks_are_on_the_side_that_helps_the_other_methods(faster: bool, wanted: float) -> None:
    """Of ours the faster, of others the slower."""

    def coarse(aim: float) -> float:
        return round(aim * 5) / 5

    assert at_measured(coarse, lambda made: made, lambda made: made, 0.5, 1.0, faster) == pytest.approx(wanted)
