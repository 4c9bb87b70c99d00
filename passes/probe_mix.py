"""Which worth to trust: plain scores, probed losses, or between, by the measured loss of the plans that they lead to.

Probes measure one axis at a time, so their sum misses how cuts act together; sums of scores miss how axes compare. Neither is
always better, but both plans exist before any training, and a few batches tell which loses less.
"""

from collections.abc import Callable, Mapping, Sequence

from .saliency import Floats

Worth = Mapping[str, Floats]
Sizes = Mapping[str, int]
PROBED = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the probed worth


def mixtures(plain: Worth, probed: Worth, shares: Sequence[float] = PROBED) -> tuple[dict[str, Floats], ...]:
    """For each share the sum of both worths, each in units of its own total, so that a share means the same for every criterion.

    Axes that were not probed have no choice, and are left out; worth ends at the largest candidate, which constraints may have lowered.
    """
    plain = {name: plain[name][: len(worth)] for name, worth in probed.items()}
    units = [sum(float(w[name][-1]) for name in probed) or 1.0 for w in (plain, probed)]
    return tuple({n: (1 - s) / units[0] * plain[n] + s / units[1] * probed[n] for n in probed} for s in shares)


def best_worth(
    plain: Worth,
    probed: Worth,
    choose: Callable[[Worth], Sizes],
    loss: Callable[[Sizes], float],
    whole: Sizes,
    smallest: Sizes,
) -> dict[str, Floats]:
    """The mixture whose chosen sizes have the lowest measured loss; equal sizes are measured once.

    Where even that loss is nearer to the one of the smallest network than to the one of the whole, nothing that was measured tells plans
    apart: all of them answer by chance, and plain scores decide.
    """
    known: dict[tuple[tuple[str, int], ...], float] = {}
    found: list[tuple[float, dict[str, Floats]]] = []
    offered = mixtures(plain, probed)
    for worth in offered:
        sizes = choose(worth)
        key = tuple(sorted(sizes.items()))
        if key not in known:
            known[key] = loss(sizes)
        found.append((known[key], worth))
    lowest, best = min(found, key=lambda f: f[0])
    return best if lowest <= (loss(whole) + loss(smallest)) / 2 else offered[0]


def extreme_sizes(candidates: Mapping[str, Sequence[int]]) -> tuple[dict[str, int], dict[str, int]]:
    """The largest and the smallest sizes of all axes that have a choice; no axis is removed."""
    free = {name: sizes for name, sizes in candidates.items() if len(sizes) > 1}
    return {n: sizes[-1] for n, sizes in free.items()}, {n: min(s for s in sizes if s) for n, sizes in free.items()}
