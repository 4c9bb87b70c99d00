"""Calibration: how large the values of a network get on samples, and so the scale of each."""

from collections.abc import Iterable, Mapping

import torch

from billhook.ir.errors import DataError
from billhook.ir.network import Network
from billhook.ir.reference import run_calls

QUANTILE = 0.9999  # of the magnitudes of a sample; what lies above is clipped
LEAST = 1e-8  # what is smaller on all samples counts as 0


def value_name(output: str, call: int, calls: int) -> str:
    """The name of the value of call number `call` of a kernel with so many calls and this output."""
    return output if call == calls - 1 else f"{output}.{call}"


def calibrate(network: Network, samples: Iterable[torch.Tensor]) -> Mapping[str, float]:
    """The scale of every value (one int8 step), constants apart: the largest over samples of a high quantile of the magnitudes, / 127.

    samples: inputs of the network's shape. Raises DataError for none, or for values that are not finite.
    """
    largest: dict[str, float] = {}
    for sample in samples:
        for name, value in _values(network, sample).items():
            magnitudes = value.detach().abs().flatten().float()
            rank = max(1, min(magnitudes.numel(), round(QUANTILE * magnitudes.numel())))
            high = float(magnitudes.kthvalue(rank).values)
            if not high < float("inf"):
                raise DataError(f"value {name} is not finite on a calibration sample; clean the data or the weights")
            largest[name] = max(largest.get(name, 0.0), high)
    if not largest:
        raise DataError("calibration needs at least one sample; give calibration data")
    return {name: (high if high > LEAST else 1.0) / 127 for name, high in largest.items()}  # a value that is always 0 says nothing


def _values(network: Network, sample: torch.Tensor) -> dict[str, torch.Tensor]:
    """All activations by name."""
    given = {network.inputs[0][0]: sample}
    for kernel in network.kernels:
        inputs = [given[n] if n in given else network.constants[n] for n in kernel.inputs]
        calls = kernel.workload.calls
        with torch.no_grad():
            results = run_calls(calls, inputs)[len(inputs) :]
        for i, result in enumerate(results):
            given[value_name(kernel.output, i, len(calls))] = result
        given[kernel.output] = given[kernel.output].reshape(kernel.workload.output.shape)
    return given
