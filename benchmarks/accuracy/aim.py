"""Equal latency: the setting of a method whose network comes nearest to the latency that is wanted."""

from collections.abc import Callable
from typing import TypeVar

from billhook.ir.errors import BudgetError

T = TypeVar("T")
CLOSE = 0.015  # of the wanted latency
_TRIALS = 7


def nearest(
    make: Callable[[float], T],
    latency: Callable[[T], float],
    wanted: float,
    start: float,
    low: float,
    high: float,
    power: float = 1.0,
) -> T:
    """make(setting), for a setting between low and high (latency rises with it) whose latency is `wanted` within CLOSE.

    Where a method's widths are too coarse for that, the slower of the two neighbours: no method is to look worse for being faster.
    start: the setting that is tried first; power: of the latency, to which the setting is about proportional. Raises BudgetError
    where no setting gives a network.
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
    close = [f for f in found if abs(f[0]) <= CLOSE]
    slower = [f for f in found if f[0] > 0]
    if close:
        return min(close, key=lambda f: abs(f[0]))[1]
    return min(slower, key=lambda f: f[0])[1] if slower else max(found, key=lambda f: f[0])[1]
