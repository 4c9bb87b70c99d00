"""Mixtures of plain and probed worths, and the choice among them by measured loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from billhook.passes.probe_mix import best_worth, extreme_sizes, mixtures

PLAIN = {"a": np.array([0.0, 8.0]), "b": np.array([0.0, 2.0]), "frozen": np.array([0.0, 5.0])}
PROBED = {"a": np.array([0.0, 1.0]), "b": np.array([0.0, 3.0])}


def test_both_worths_count_in_their_own_unit() -> None:
    plain, half, probed = mixtures(PLAIN, PROBED, (0.0, 0.5, 1.0))
    assert set(half) == {"a", "b"}
    assert (plain["a"][1], plain["b"][1]) == pytest.approx((0.8, 0.2))
    assert (probed["a"][1], probed["b"][1]) == pytest.approx((0.25, 0.75))
    assert half["a"][1] == pytest.approx((0.8 + 0.25) / 2)


def test_worth_ends_at_the_largest_candidate() -> None:
    """A constraint may exclude the dense width, which plain scores reach."""
    longer = {**PLAIN, "a": np.array([0.0, 8.0, 9.0])}
    assert len(mixtures(longer, PROBED)[0]["a"]) == 2
    assert mixtures(longer, PROBED)[0]["a"][1] == pytest.approx(0.8)


def test_a_worth_of_nothing_is_no_division_by_zero() -> None:
    nothing = {"a": np.zeros(2), "b": np.zeros(2)}
    assert all(np.isfinite(w["a"]).all() for w in mixtures(PLAIN, nothing))


def _choose(worth: Mapping[str, Any]) -> dict[str, int]:
    return {"a": 1 if worth["a"][1] > 0.5 else 2}


@pytest.mark.parametrize(("losses", "share"), [({1: 0.7, 2: 0.4}, 1.0), ({1: 0.4, 2: 0.7}, 0.0), ({1: 0.95, 2: 0.9}, 0.0)])
def test_the_lowest_loss_wins_unless_all_answer_by_chance(losses: dict[int, float], share: float) -> None:
    """Whole 0.2, smallest 1.0: from 0.6 on the plans tell nothing, and plain scores decide."""
    known = {**losses, 9: 0.2, 0: 1.0}
    asked: list[int] = []

    def loss(sizes: Mapping[str, int]) -> float:
        asked.append(sizes["a"])
        return known[sizes["a"]]

    worth = best_worth(PLAIN, PROBED, _choose, loss, {"a": 9}, {"a": 0})
    wanted = mixtures(PLAIN, PROBED, (share,))[0]
    assert _choose(worth) == _choose(wanted)
    assert sorted(asked) == [0, 1, 2, 9]  # equal plans are measured once


def test_extreme_sizes_remove_nothing() -> None:
    assert extreme_sizes({"a": (0, 8, 16), "b": (4, 8), "frozen": (5,)}) == ({"a": 16, "b": 8}, {"a": 8, "b": 4})
