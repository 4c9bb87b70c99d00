"""Memory plan: where every intermediate value of a launch sequence lies in one arena. Values that never live together share space."""

from collections.abc import Collection, Mapping, Sequence

ALIGNMENT = 256  # bytes; what cudaMalloc guarantees, so kernels may use their widest loads on every value


def plan_memory(uses: Sequence[Collection[str]], sizes: Mapping[str, int], kept: Collection[str]) -> tuple[dict[str, int], int]:
    """Offsets (bytes) of the values in `sizes` (bytes), and the arena's size.

    uses: the values that each step reads or writes; a value lives from its first to its last use, one in `kept` until
    the end. Greedy by size: each value takes the lowest gap among those already placed that live at the same time.
    """
    first, last = _lives(uses, sizes, kept)
    placed: list[str] = []
    offsets: dict[str, int] = {}
    for name in sorted(first, key=lambda n: (-sizes[n], first[n])):
        alive = [other for other in placed if first[other] <= last[name] and first[name] <= last[other]]
        position = 0
        for other in sorted(alive, key=offsets.__getitem__):
            if offsets[other] - position >= sizes[name]:
                break
            position = max(position, _aligned(offsets[other] + sizes[other]))
        offsets[name] = position
        placed.append(name)
    return offsets, max((_aligned(offsets[n] + sizes[n]) for n in placed), default=0)


def _lives(uses: Sequence[Collection[str]], sizes: Mapping[str, int], kept: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last step in which each value is alive."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, names in enumerate(uses):
        for name in names:
            if name in sizes:
                first.setdefault(name, step)
                last[name] = step
    last.update({name: len(uses) for name in kept if name in first})
    return first, last


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
