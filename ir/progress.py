"""How long work reports its progress, wherever it runs."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]  # (stage, how much is done, of how much; 0 where nobody knows)


def no_progress(_stage: str, _done: int, _total: int, /) -> None:
    """The listener that shows nothing."""
