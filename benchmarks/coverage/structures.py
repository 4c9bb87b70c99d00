"""Our own structural fixtures: one construct each (tests/support/structures.py); the tests check every axis of each."""

from .case import Case
from .support import STRUCTURES


def cases() -> list[Case]:
    """All cases, by name."""
    return [Case("structures", name, structure.build) for name, structure in sorted(STRUCTURES.items())]
