"""Random feasible width assignments, the same for the same seed."""

import random
from collections.abc import Iterator, Mapping, Sequence

from billhook.ir.program import Program
from billhook.passes.removal import data_flow, keeps_paths

INDEPENDENT, LEVEL = "independent", "level"
_NEAR = 0.2  # of an axis' size: how far a width may lie from the level


def assignments(program: Program, candidates: Mapping[str, Sequence[int]], seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Endless (kind, size of every axis), alternately of two kinds.

    "independent": every axis has any of its candidates, which puts most networks near the same latency. "level": all axes lie
    near one random share of their dense size, which spreads the networks over the range of budgets that people ask for.
    """
    flow, rng = data_flow(program), random.Random(seed)
    for number in range(1_000_000):
        kind = (INDEPENDENT, LEVEL)[number % 2]
        while True:
            sizes = independent(candidates, rng) if kind == INDEPENDENT else near_level(candidates, rng)
            if keeps_paths(program, [name for name, size in sizes.items() if size == 0], flow):
                break
        yield kind, sizes


def independent(candidates: Mapping[str, Sequence[int]], rng: random.Random) -> dict[str, int]:
    """Any candidate of every axis."""
    return {name: rng.choice(list(sizes)) for name, sizes in candidates.items()}


def near_level(candidates: Mapping[str, Sequence[int]], rng: random.Random) -> dict[str, int]:
    """For every axis a candidate near the same share of its largest; none is removed."""
    level = rng.uniform(0.1, 1.0)
    return {name: rng.choice(_around(sizes, level)) for name, sizes in candidates.items()}


def _around(sizes: Sequence[int], level: float) -> list[int]:
    kept = [s for s in sizes if s > 0]
    near = [s for s in kept if abs(s / kept[-1] - level) <= _NEAR]
    return near or [min(kept, key=lambda s: abs(s / kept[-1] - level))]
