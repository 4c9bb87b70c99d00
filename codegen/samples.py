"""Random tensors that a kernel is checked and timed with, and the check against torch."""

from collections.abc import Callable

import numpy as np
import torch

from billhook.ir.grids import QUINT8, grids_input, on_grid, quantise_rows
from billhook.ir.reference import run_workload
from billhook.ir.workload import Workload

from .cpu.epilogue import channel_vectors
from .cpu.packing import from_blocked, to_blocked
from .cpu.reduced import BFLOAT16, TOLERANCE, from_bits, is_float, is_reduced, storage, to_bits

Pack = Callable[[int, np.ndarray], np.ndarray]
_DIFFERING = 0.01  # share of the integers that may be one unit off: ties between two, which float32 and float64 may break differently


def sample_inputs(workload: Workload, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Logical inputs: unit normal activations, parameters scaled to keep the output near 1.

    Numbers in bfloat16 or on a grid come as float32. Where data is on a grid, so are the weights that it is multiplied by.
    """
    rng = np.random.default_rng(seed)
    positive, rows = channel_vectors(workload), sample_grids(workload)
    arrays: list[np.ndarray] = []
    for i, (given, role) in enumerate(zip(workload.inputs, workload.roles, strict=True)):
        if i == grids_input(workload):
            arrays.append(np.array(list(rows.values()), np.float32))
            continue
        if not given.dtype.startswith("float") and not is_float(given):
            arrays.append(np.zeros(given.shape, given.dtype))
            continue
        fan_in = int(np.prod(given.shape[1:])) if role == "parameter" and len(given.shape) > 1 else 1
        array = rng.standard_normal(given.shape) / np.sqrt(max(fan_in, 1))
        array = np.abs(array) + 0.5 if i in positive else array
        if i in rows:
            step, zero = rows[i]
            array = ((_bytes(array, step, zero) - zero) * step).astype(np.float32)
        elif role == "parameter" and len(given.shape) > 1 and 0 in rows:
            integers, steps = quantise_rows(array)
            array = (integers * steps.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32)
        else:
            array = from_bits(to_bits(array)) if given.dtype == BFLOAT16 else array.astype(given.dtype)
        arrays.append(array)
    return tuple(arrays)


def sample_grids(workload: Workload) -> dict[int, tuple[float, float]]:
    """Step and zero of every tensor on a grid, by its number (`ir.grids.on_grid`): around unit normal numbers.

    All different, and in no simple ratio: values copied between such grids would often lie halfway between two integers.
    """
    return {place: (float(np.float32((8 + 0.7310586 * row) / 255)), 120.0 + 5 * row) for row, place in enumerate(on_grid(workload))}


def _bytes(array: np.ndarray, step: float, zero: float) -> np.ndarray:
    """The nearest places on a grid, in float64."""
    return np.clip(np.rint(array.astype(np.float64) / step + zero), 0, 255)


def flat_inputs(workload: Workload, arrays: tuple[np.ndarray, ...], pack: Pack) -> list[np.ndarray]:
    """The inputs as the kernel reads them. Padding lanes of activations hold numbers that a correct kernel ignores."""
    flat: list[np.ndarray] = []
    for i, (given, role, array) in enumerate(zip(workload.inputs, workload.roles, arrays, strict=True)):
        stored = pack(i, array) if role == "parameter" else to_blocked(array, given.block, fill=3.0)
        if given.dtype == QUINT8:
            stored = _bytes(stored, *sample_grids(workload)[i]).astype(np.uint8)
        flat.append(to_bits(stored) if given.dtype == BFLOAT16 else stored)
    return flat


def empty_output(workload: Workload) -> np.ndarray:
    """A zeroed flat buffer for the kernel's output."""
    return np.zeros(workload.output.elements, storage(workload.output.dtype))


def expected_output(workload: Workload, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """The logical output, computed by torch; from floating-point inputs in float64, so that only the kernel's own error shows."""
    return run_workload(workload, tuple(_wide(torch.as_tensor(a)) for a in arrays)).detach().numpy()


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def mismatch(workload: Workload, flat_output: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """Why a kernel's flat output is wrong, or None if it is right. tolerance: largest error, relative to the largest output.

    Kernels that may multiply in bfloat16 have the tolerance of that. Results on a grid may be one unit off, and hardly any of them.
    """
    if workload.output.dtype == QUINT8:
        step, zero = sample_grids(workload)[len(workload.inputs)]
        return _bytes_mismatch(from_blocked(flat_output, workload.output), _bytes(expected, step, zero))
    if workload.output.dtype == BFLOAT16:
        flat_output = from_bits(flat_output)
    tolerance = max(tolerance, TOLERANCE) if is_reduced(workload) else tolerance
    found = from_blocked(flat_output, workload.output)
    if not np.isfinite(flat_output).all():
        return "wrong result: not finite"
    error = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-6)
    return f"wrong result: relative error {error:.1e}, tolerance {tolerance:g}" if error > tolerance else None


def _bytes_mismatch(found: np.ndarray, expected: np.ndarray) -> str | None:
    off = np.abs(found.astype(np.float64) - expected)
    if off.max(initial=0) > 1:
        return f"wrong result: {off.max():.0f} units off"
    differing = np.count_nonzero(off)
    return f"wrong result: {differing} of {off.size} integers differ" if differing > max(_DIFFERING * off.size, 1) else None
