"""Mixtures of plain and probed worths."""

import numpy as np
import pytest

from billhook.passes.probe_mix import mixtures

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
