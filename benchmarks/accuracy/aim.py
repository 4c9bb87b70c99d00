"""Equal latency: the setting of a method whose network comes nearest to the latency that is wanted."""

from collections.abc import Callable
from typing import TypeVar

from billhook.ir.errors import BudgetError

T = TypeVar("T")
CLOSE = 0.015  # of the wanted latency
EQUAL = 0.03  # what counts as the same latency in the summary
_TRIALS = 6
_NEAR = 0.025  # no further network is built for less
_BUILDS = 7  # equal ones only once


def nearest(
    make: Callable[[float], T],
    latency: Callable[[T], float],
    wanted: float,
    start: float,
    low: float,
    high: float,
    power: float = 1.0,
    rank: Callable[[T], float] | None = None,
) -> T:
    """make(setting), for a setting between low and high (latency rises with it) whose latency is `wanted` within CLOSE.

    Where a method's widths are too coarse for that, the slower of the two neighbours: no method is to look worse for being faster.
    start: the setting that is tried first; power: of the latency, to which the setting is about proportional; rank: of networks within
    CLOSE the one with the lowest is taken instead of the nearest. Raises BudgetError where no setting gives a network.
    """
    found: list[tuple[float, T]] = []
    setting = start
    for _ in range(_TRIALS):
        try:
            made = make(setting)
        except BudgetError:  # below what the method believes to be its fastest
            low, setting = setting, (setting + high) / 2
            continue
        off = latency(made) / wanted - 1
        found.append((off, made))
        if abs(off) <= CLOSE / 2:
            break
        low, high = (setting, high) if off < 0 else (low, setting)
        proposal = setting / (1 + off) ** power
        setting = proposal if low < proposal < high else (low + high) / 2
    if not found:
        raise BudgetError("no setting of this method gives a network")
    return _best(found, CLOSE, faster=False, rank=rank)


def at_measured(
    make: Callable[[float], T], predicted: Callable[[T], float], measured: Callable[[T], float], wanted: float, bias: float, faster: bool
) -> T:
    """make(share) for the predicted share at which the built network takes `wanted` of the dense latency, by building a few.

    predicted, measured: shares of a network, the second of one that was built. bias: measured over predicted, expected at first.
    Within EQUAL the nearest; where no network is, the nearest of the slower ones, or with `faster` of the faster ones.
    """
    found: list[tuple[float, T]] = []
    aim, low, high = wanted / bias, 0.0, 2 * wanted / bias
    for _ in range(_BUILDS):
        made = make(aim)
        off = measured(made) / wanted - 1
        found.append((off, made))
        if abs(off) <= _NEAR:
            break
        low, high = (aim, high) if off < 0 else (low, aim)
        proposal = predicted(made) / (1 + off)
        aim = proposal if low < proposal < high else (low + high) / 2
    return _best(found, EQUAL, faster)


def _best(found: list[tuple[float, T]], close: float, faster: bool, rank: Callable[[T], float] | None = None) -> T:
    within = [f for f in found if abs(f[0]) <= close]
    if within and rank is not None:
        return min((made for _, made in within), key=rank)
    side = [f for f in found if (f[0] <= 0) == faster]
    return min(within or side or found, key=lambda f: abs(f[0]))[1]
