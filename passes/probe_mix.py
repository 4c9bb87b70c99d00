"""Worths between plain scores and probed losses.

Probes measure one axis at a time, so their sum misses how cuts act together; sums of scores miss how axes compare. Neither is
always better, but their plans exist before any training, and a few batches tell which loses less (`plan_choice`).
"""

from collections.abc import Mapping, Sequence

from .saliency import Floats

Worth = Mapping[str, Floats]
PROBED = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the probed worth


def mixtures(plain: Worth, probed: Worth, shares: Sequence[float] = PROBED) -> tuple[dict[str, Floats], ...]:
    """For each share the sum of both worths, each in units of its own total, so that a share means the same for every criterion.

    Axes that were not probed have no choice, and are left out; worth ends at the largest candidate, which constraints may have lowered.
    """
    plain = {name: plain[name][: len(worth)] for name, worth in probed.items()}
    units = [sum(float(w[name][-1]) for name in probed) or 1.0 for w in (plain, probed)]
    return tuple({n: (1 - s) / units[0] * plain[n] + s / units[1] * probed[n] for n in probed} for s in shares)
