"""A bundle's test vector: inputs and expected outputs as raw files, listed in a text file that C++ reads without a library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from billhook.ir.errors import BundleError

LIST = "vector.txt"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TestVector:
    """Inputs with the outputs that are expected of them; tolerance: the largest relative error; threads of one inference."""

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    tolerance: float = 1e-4
    threads: int = 1


def write_vector(folder: Path, vector: TestVector) -> None:
    """Write the list and one raw row-major little-endian file per tensor into an existing folder."""
    lines = [f"tolerance {vector.tolerance:g}", f"threads {vector.threads}"]
    for role, arrays in (("input", vector.inputs), ("output", vector.outputs)):
        for i, array in enumerate(arrays):
            name = f"{role}{i}.bin"
            (folder / name).write_bytes(np.ascontiguousarray(array).data)
            lines.append(" ".join([role, name, array.dtype.name, *map(str, array.shape)]))
    (folder / LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_vector(folder: Path) -> TestVector:
    """Read what `write_vector` wrote.

    Raises:
        BundleError: the list or a file is missing or damaged.
    """
    path = folder / LIST
    numbers: dict[str, float] = {}
    arrays: dict[str, list[Array]] = {"input": [], "output": []}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            key, *words = line.split()
            if key in arrays:
                name, dtype, *shape = words
                arrays[key].append(np.fromfile(folder / name, dtype=dtype).reshape([int(size) for size in shape]))
            else:
                numbers[key] = float(words[0])
        return TestVector(tuple(arrays["input"]), tuple(arrays["output"]), numbers["tolerance"], int(numbers["threads"]))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BundleError(f"{path}: the test vector is damaged ({error}); copy or save the bundle again") from error


def relative_error(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """Largest absolute difference over the largest absolute expected value, the worst output's.

    Infinite where the number of outputs, a shape or an element type differs, or a difference is not a number. Elements
    near zero are thereby judged by the scale of their tensor, as rounding errors are.
    """
    if len(actual) != len(expected):
        return math.inf
    return max((_relative_error(a, b) for a, b in zip(actual, expected, strict=True)), default=0.0)


def _relative_error(actual: Array, expected: Array) -> float:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return math.inf
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(actual, expected) else math.inf
    difference = float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    if difference == 0:
        return 0.0
    return difference / scale if math.isfinite(difference) and scale else math.inf
