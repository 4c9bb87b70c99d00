"""The shape of a pass, and the runner that verifies, times and wraps errors around each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .errors import VerifyError
from .program import Program
from .verify import verify

Transform: TypeAlias = Callable[[Program], Program]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that a pass took, verification not included."""

    name: str
    seconds: float


def run_passes(
    program: Program, passes: Sequence[tuple[str, Transform]], observe: Callable[[str, Program], None] | None = None
) -> tuple[Program, tuple[Timing, ...]]:
    """Run named passes in order, verifying before the first and after each.

    observe: called with every pass's name and result (for dumps). A failed verification names the pass that caused it.
    """
    verify(program)
    timings: list[Timing] = []
    for name, function in passes:
        start = time.perf_counter()
        program = function(program)
        timings.append(Timing(name, time.perf_counter() - start))
        try:
            verify(program)
        except VerifyError as failure:
            raise VerifyError(f"after pass {name}: {failure}") from failure
        if observe is not None:
            observe(name, program)
    return program, tuple(timings)
