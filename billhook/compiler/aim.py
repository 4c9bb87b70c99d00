"""Where to aim next, from the networks measured so far: the closed loop's control, apart from what it controls."""

import math
from collections.abc import Sequence
from typing import TypeAlias

Tried: TypeAlias = tuple[float, float]  # seconds: predicted without calibration, and measured
_SCATTER = 0.01  # standard deviation of measured / predicted between networks of one size, as a share
_BEND = 0.1  # what is added to it for a network that differs from the goal by a factor e
_SLOPE = 0.3  # standard deviation of the slope around 1, before anything is known


def aim(goal: float, tried: Sequence[Tried]) -> float:
    """The uncalibrated prediction (seconds) of networks that are expected to take `goal` seconds.

    A line through log(predicted) over log(measured), fitted with more weight on networks near the goal (locally weighted
    regression; Cleveland 1979) and a slope that stays near 1 unless they say otherwise. One network gives its ratio; two on
    either side of the goal bracket it; several near it are averaged, because each scatters by itself. A calibration fits all
    networks at once; this one is right near the goal. `tried` must not be empty, and its seconds are positive.
    """
    found = [(math.log(measured / goal), math.log(predicted)) for predicted, measured in tried]
    weights = [1 / (_SCATTER**2 + (_BEND * t) ** 2) for t, _ in found]
    ridge = 1 / _SLOPE**2
    once, first, second = sum(weights), _total(weights, [t for t, _ in found]), ridge + _total(weights, [t * t for t, _ in found])
    level, tilt = _total(weights, [y for _, y in found]), ridge + _total(weights, [t * y for t, y in found])
    return math.exp((level * second - first * tilt) / (once * second - first * first))


def _total(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True))
