"""From repeated timings to a latency with an interval, and a verdict where the timings are too noisy for one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, TypeAlias

from billhook.ir.errors import OptionError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.progress import Progress

DISTURBED = 0.04  # slower than before by more than this share: something else uses the machine
ATTEMPTS = 4
_SEEN = 3  # timings that a fastest one needs to count: a core whose neighbours all rest for a moment is no state to promise

Statistic: TypeAlias = Literal["minimum", "median"]
Verdict: TypeAlias = Literal["ok", "too noisy"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated timings of one thing in seconds, in the order in which they were taken.

    latency: the chosen statistic with its 95% interval; verdict: "too noisy" where that interval is wider than the gate, as a
    share of the latency: such a number may be shown, but nothing may be decided by it.
    """

    latency: Latency
    seconds: tuple[float, ...]
    verdict: Verdict

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the timings do not exceed, interpolated linearly."""
        ordered = sorted(self.seconds)
        place = percent / 100 * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    def __str__(self) -> str:
        p10, p50, p90 = (self.percentile(p) * 1e3 for p in (10, 50, 90))
        text = f"{self.latency}, p10/50/90 {p10:.3f}/{p50:.3f}/{p90:.3f} ms of {len(self.seconds)}"
        return text if self.verdict == "ok" else text + ", TOO NOISY"


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer one thing takes than another, with the 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f}x [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Rounds:
    """How contenders are timed against each other.

    count: rounds, each of which times every contender once; limit: rounds that may be spent while a contender is too noisy;
    warmup: calls of each before the first round; settle: untimed calls before each timing, which bring a contender's data back
    into the caches that the one before it has filled; slice: seconds that one timing lasts at least, by repeating short calls;
    gate: widest interval that is not too noisy, as a share of the latency.
    """

    count: int = 30
    limit: int = 90
    warmup: int = 3
    settle: int = 1
    slice: float = 0.005
    statistic: Statistic = "median"
    gate: float = 0.05

    def __post_init__(self) -> None:
        if not (1 <= self.count <= self.limit and self.warmup >= 1 and self.settle >= 0 and self.slice >= 0 and self.gate > 0):
            raise OptionError(f"rounds need 1 <= count <= limit, warmup >= 1, settle >= 0, slice >= 0 and gate > 0, got {self}")


def timing(seconds: Sequence[float], statistic: Statistic = "median", gate: float = 0.05, provenance: Provenance = "host") -> Timing:
    """Summarise timings [n] in seconds; `gate`: widest interval that is not too noisy, as a share of the latency.

    Raises:
        OptionError: there are no timings, or one of them is not a positive finite number.
    """
    if not seconds or not all(math.isfinite(s) and s > 0 for s in seconds):
        raise OptionError(f"need positive timings in seconds, got {list(seconds)[:5]}; time calls that take longer than the clock's tick")
    ordered = tuple(sorted(seconds))
    low, value, high = _minimum(ordered, gate) if statistic == "minimum" else _median(ordered)
    verdict: Verdict = "too noisy" if len(ordered) < 3 or high - low > gate * value else "ok"
    return Timing(Latency(value, low, high, provenance), tuple(seconds), verdict)


def ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """Ratio of two contenders of the same rounds: the median over the rounds, so that slow drifts of the machine cancel.

    Raises:
        OptionError: the two were not timed in the same number of rounds.
    """
    if len(numerator.seconds) != len(denominator.seconds):
        raise OptionError(f"a ratio needs timings of the same rounds, got {len(numerator.seconds)} and {len(denominator.seconds)} of them")
    quotients = sorted(a / b for a, b in zip(numerator.seconds, denominator.seconds, strict=True))
    low, value, high = _median(tuple(quotients))
    return Ratio(value, low, high)


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    rounds: Rounds = Rounds(),
    clock: Callable[[], float] = perf_counter,
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Time contenders in turns within this process, so that all of them meet the same states of the machine.

    The order rotates from round to round. Threads, affinity and inputs are the caller's: each contender is a plain call.
    """
    calls = {name: _warm_up(call, rounds, clock) for name, call in contenders.items()}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for done in range(rounds.limit):
        for name in names[done % len(names) :] + names[: done % len(names)]:
            taken[name].append(_one_slice(contenders[name], calls[name], rounds.settle, clock))
        enough = done + 1 >= rounds.count and all(timing(t, rounds.statistic, rounds.gate).verdict == "ok" for t in taken.values())
        if progress is not None:
            progress("measure networks", rounds.limit if enough else done + 1, rounds.limit)
        if enough:
            break
    return {name: timing(t, rounds.statistic, rounds.gate) for name, t in taken.items()}


def undisturbed(measure: Callable[[], dict[str, Timing]], name: str, seconds: float, attempts: int = ATTEMPTS) -> dict[str, Timing]:
    """Measure until contender `name` takes no longer than `seconds`, which it is known to take, give or take `DISTURBED`.

    Neighbours who use the memory slow a network whose weights come from there more than one that lies in a cache, so that even
    ratios taken in the same rounds are wrong while it lasts. After `attempts` the least disturbed timings count.
    """
    found = [measure()]
    while len(found) < attempts and found[-1][name].latency.seconds > (1 + DISTURBED) * seconds:
        found.append(measure())
    return min(found, key=lambda timings: timings[name].latency.seconds)


def _warm_up(call: Callable[[], object], rounds: Rounds, clock: Callable[[], float]) -> int:
    """Run until warm; returns how many calls fill a slice."""
    best = math.inf
    for _ in range(rounds.warmup):
        begun = clock()
        call()
        best = min(best, clock() - begun)
    return max(1, math.ceil(rounds.slice / best)) if best > 0 else 1000


def _one_slice(call: Callable[[], object], calls: int, settle: int, clock: Callable[[], float]) -> float:
    """Seconds of one call, as the mean over a slice."""
    for _ in range(settle):
        call()
    begun = clock()
    for _ in range(calls):
        call()
    return (clock() - begun) / calls


def _minimum(ordered: tuple[float, ...], gate: float) -> tuple[float, float, float]:
    """The smallest timing that others confirm, the smallest of all, and where the smallest of as many fresh timings would lie.

    Confirmed: two more are within the gate of it. A lone one was taken in a state of the machine that does not last, and short networks,
    which fit into such a moment, would look faster beside long ones than they are; it is the interval's end. The other end, with 95%
    probability, is the bootstrap's distribution in closed form: the minimum of a resample exceeds the k-th smallest of n with
    probability (1 - k/n)^n, which is below 5% from k = 3 on for any n > 3.
    """
    n = len(ordered)
    k = next(k for k in range(1, n + 1) if (1 - k / n) ** n <= 0.05)
    last = n - _SEEN + 1
    first = next((i for i in range(last) if ordered[i + _SEEN - 1] <= (1 + gate) * ordered[i]), 0)
    return ordered[0], ordered[first], ordered[min(first + k, n) - 1]


def _median(ordered: tuple[float, ...]) -> tuple[float, float, float]:
    """The median with the 95% interval from order statistics, which assumes no distribution.

    The true median lies between the k-th smallest and the k-th largest of n with probability 1 - 2 P(Binomial(n, 1/2) < k);
    with fewer than six timings no k reaches 95%, and the interval is their whole range.
    """
    n, k, tail = len(ordered), 1, 1  # tail: number of the 2^n outcomes with fewer than k successes
    while (tail + math.comb(n, k)) * 40 <= 2**n:
        tail += math.comb(n, k)
        k += 1
    return ordered[k - 1], (ordered[(n - 1) // 2] + ordered[n // 2]) / 2, ordered[n - k]
