"""The baseline: the same share of every axis, at the same measured latency as the plan that it is compared with."""

from dataclasses import dataclass

import numpy as np

from billhook.compiler.engine import Build
from billhook.compiler.fit import Fitter, MeasureBuild, Sizes
from billhook.ir.latency import Latency
from billhook.passes.candidate_sizes import uniform_sizes
from billhook.passes.prune import Pruned

ATTEMPTS = 3
CLOSE = 0.02


@dataclass(frozen=True)
class Uniform:
    """A uniform cut: its share of every width, the network, and its measured latency."""

    share: float
    sizes: Sizes
    pruned: Pruned
    build: Build
    measured: Latency


def at_latency(fitter: Fitter, measure: MeasureBuild, goal: float) -> Uniform:
    """The uniform cut whose measured latency is nearest to `goal` seconds, found by predicting, measuring and recalibrating."""
    shares: dict[tuple[int, ...], float] = {}
    for share in np.linspace(0.1, 1.0, 361):
        shares.setdefault(tuple(uniform_sizes(fitter.candidates, float(share)).values()), float(share))
    tried: dict[float, Uniform] = {}
    for _ in range(ATTEMPTS):
        left = [s for s in shares.values() if s not in tried]
        if not left:
            break
        share = min(left, key=lambda s: abs(fitter.expect(uniform_sizes(fitter.candidates, s)).seconds - goal))
        sizes = uniform_sizes(fitter.candidates, share)
        if tried and abs(fitter.expect(sizes).seconds - goal) >= min(abs(u.measured.seconds - goal) for u in tried.values()):
            break  # nothing left is expected nearer than what was found: widths come in steps
        pruned, build = fitter.cut(sizes)
        tried[share] = Uniform(share, sizes, pruned, build, measure(build))
        if abs(tried[share].measured.seconds / goal - 1) <= CLOSE:
            break
        fitter.learn(sizes, tried[share].measured)
    return min(tried.values(), key=lambda u: abs(u.measured.seconds / goal - 1))
