"""Stages of a run: their seconds, for the report."""

import resource
import time
from collections.abc import Generator
from contextlib import contextmanager


class Stages:
    """Seconds per stage, in the order of their first start; a stage that is entered again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time the body as part of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds since the first moment."""
        return time.perf_counter() - self._begun


def peak_memory() -> int:
    """Largest resident memory so far of this process or of its largest child, in bytes."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) * 1024
