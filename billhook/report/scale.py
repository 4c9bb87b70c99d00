"""Scales of a chart: from data to pixels, with round tick values."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic map of [low, high] to [start, end] pixels (start may exceed end: an upward axis)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the range: steps of 1, 2 or 5 times a power of ten; 1, 2, 5 per decade if logarithmic."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        step = _round_step((self.high - self.low) / max(count, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def _round_step(raw: float) -> float:
    power = 10 ** math.floor(math.log10(raw))
    return power * next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
        if len(ticks) <= 2 * count:
            return ticks
    return ticks[:: -(-len(ticks) // count)]


def spanning(values: list[float], start: float, end: float, *, margin: float = 0.05, zero: bool = False, log: bool = False) -> Scale:
    """A scale that holds all values with some margin; `zero` makes it begin at zero."""
    low, high = min(values), max(values)
    if log:
        pad = max((high / low) ** margin, 1.1)
        return Scale(low / pad, high * pad, start, end, log=True)
    pad = (high - low) * margin or abs(high) * margin or 1.0
    return Scale(0.0 if zero else low - pad, high + pad, start, end)
