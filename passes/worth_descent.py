"""Axes weighed anew by the networks that a worth leads to.

A sum over axes cannot say that a network without any attention, or with one width of a chain too small, answers by chance. So, where plans
can be judged, one axis after the other counts for more or for less, as coordinate descent does, and what loses less stays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from billhook.ir.errors import OptionError
from billhook.ir.progress import Progress, no_progress

from .saliency import Floats

Worth = Mapping[str, Floats]
Sizes = Mapping[str, int]
TRIALS = 48  # plans that are judged
_TIMES = (2.0, 4.0, 8.0)  # as much, or as little, an axis counts in a trial: the first that makes another plan
_KEPT = 0.2  # of the sum of all worths, for not losing the last of an axis
_BETTER = 1e-3  # less loss than this is no gain


def check_trials(trials: int) -> int:
    """The number, if it can be one. Raises OptionError."""
    if trials < 0:
        raise OptionError(f"trials: {trials} plans cannot be judged; give 0 or more")
    return trials


def descend(
    start: Worth,
    sizes: Callable[[Worth], Sizes],
    loss: Callable[[Sizes], float],
    trials: int = TRIALS,
    progress: Progress = no_progress,
) -> Worth:
    """The worth with the least loss that single axes' changes lead to, until none of them gains or `trials` plans were judged.

    sizes: of the plan for a worth; loss: of that plan, repaired. Worths that lead to a plan that was judged before cost no trial.
    Deterministic.
    """
    worth = _descended(start, sizes, loss, trials, progress)
    progress("weigh axes", trials, trials)
    return worth


def _descended(start: Worth, sizes: Callable[[Worth], Sizes], loss: Callable[[Sizes], float], trials: int, progress: Progress) -> Worth:
    worth, found = start, sizes(start)
    seen = {_key(found): loss(found)}
    least = seen[_key(found)]
    gained = True
    while gained:
        gained = False
        for name in _order(worth, found):
            for moved, tried in _neighbours(worth, name, found, sizes):
                if _key(tried) not in seen:
                    if len(seen) > trials:
                        return worth
                    progress("weigh axes", len(seen) - 1, trials)
                    seen[_key(tried)] = loss(tried)
                if seen[_key(tried)] < least - _BETTER:
                    worth, found, least, gained = moved, tried, seen[_key(tried)], True
                    break
    return worth


def _key(sizes: Sizes) -> frozenset[tuple[str, int]]:
    return frozenset(sizes.items())


def _order(worth: Worth, sizes: Sizes) -> list[str]:
    """Axes with a choice, those first of which the most is lost."""
    lost = {name: float(worth[name][-1] - worth[name][size]) for name, size in sizes.items() if name in worth}
    return sorted(lost, key=lambda name: -lost[name])


def _neighbours(worth: Worth, name: str, sizes: Sizes, choose: Callable[[Worth], Sizes]) -> Iterator[tuple[Worth, Sizes]]:
    """Worths with the next other plans: with this axis kept, where it is gone; with it counting for more; for less."""
    old, size = worth[name], sizes[name]
    ways: list[Sequence[Floats]] = []
    if size == 0:
        kept = old + _KEPT * sum(float(w[-1]) for w in worth.values())
        ways.append([np.concatenate([old[:1], kept[1:]])])
    if size < len(old) - 1:
        ways.append([old * t for t in _TIMES])
    if size > 0:
        ways.append([old / t for t in _TIMES])
    for way in ways:
        moved = ({**worth, name: new} for new in way)
        yield from islice(((m, s) for m, s in ((m, choose(m)) for m in moved) if s != sizes), 1)
