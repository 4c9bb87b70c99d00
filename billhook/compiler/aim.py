"""Where to aim next, from the networks measured so far: the closed loop's control, apart from what it controls."""

import math
from collections.abc import Sequence
from typing import TypeAlias

Tried: TypeAlias = tuple[float, float]  # seconds: predicted without calibration, and measured
_STEEPEST = 2.0  # of the slope between two networks in logarithms: beyond it, they differ by chance more than by size


def aim(goal: float, tried: Sequence[Tried]) -> float:
    """The uncalibrated prediction (seconds) of networks that are expected to take `goal` seconds.

    Between the nearest networks below and above the goal it is interpolated in logarithms (the bracket of regula falsi);
    beyond all of them the nearest one's ratio is taken. A calibration fits all networks at once; this one is exact near the
    goal, which is what the last percent needs. `tried` must not be empty, and its seconds are positive.
    """
    below = max((t for t in tried if t[1] <= goal), key=lambda t: t[1], default=None)
    above = min((t for t in tried if t[1] > goal), key=lambda t: t[1], default=None)
    if below is None or above is None or not below[0] < above[0]:
        predicted, measured = min(tried, key=lambda t: abs(math.log(t[1] / goal)))
        return predicted * goal / measured
    slope = math.log(above[0] / below[0]) / math.log(above[1] / below[1])
    if not 1 / _STEEPEST <= slope <= _STEEPEST:
        predicted, measured = min(below, above, key=lambda t: abs(math.log(t[1] / goal)))
        return predicted * goal / measured
    return below[0] * (goal / below[1]) ** slope
