"""Post-training quantisation of a network to 8-bit integers: what every target needs to know, apart from how it multiplies.

Activations have one scale per value, from the ranges that calibration batches show, and an unsigned or a symmetric signed grid; weights are
symmetric int8 with one step per output channel (Jacob et al. 2018, Krishnamoorthi 2018). Products are sums of integers, exact in int32;
what follows them in a kernel (bias, activation, residual) is real arithmetic, and its result is put on the output's grid.
`quantise_reference.py` computes exactly that: an integer kernel has to equal it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.errors import DataError
from billhook.ir.grids import Floats, Integers, quantise_rows
from billhook.ir.network import Kernel, Network
from billhook.ir.reference import run_workload
from billhook.ir.workload import Ref

CONTRACTIONS = ("aten.conv2d.default", "aten.linear.default")


@dataclass(frozen=True, slots=True)
class Range:
    """The smallest and the largest number that a value held during calibration; always around zero, which padding needs exactly."""

    low: float
    high: float

    def joined(self, other: "Range") -> "Range":
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Grid:
    """real = step * (integer - zero), integers within [least, most]."""

    step: float
    zero: int
    least: int
    most: int

    def quantise(self, values: torch.Tensor) -> torch.Tensor:
        """The nearest integers (ties to even, as processors round), clipped; as float64, which holds them exactly."""
        return torch.round(values.double() / self.step + self.zero).clamp(self.least, self.most)

    def real(self, integers: torch.Tensor) -> torch.Tensor:
        """What integers stand for."""
        return (integers.double() - self.zero) * self.step


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Integers [O, ...] within [-127, 127] and the step of each output channel [O]: real = integer * step."""

    integers: Integers
    steps: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Quantisation:
    """grids: of values by name, inputs included. weights: of parameters by name. kernels: those that multiply integers, by their output."""

    grids: Mapping[str, Grid]
    weights: Mapping[str, Weights]
    kernels: frozenset[str]

    def __str__(self) -> str:
        lines = [f"{len(self.kernels)} kernels in int8, {len(self.weights)} weights"]
        lines += [f"  {name}: step {g.step:.4g}, zero {g.zero}, [{g.least}, {g.most}]" for name, g in self.grids.items()]
        return "\n".join(lines)


def observe(network: Network, batches: Iterable[tuple[torch.Tensor, ...]]) -> dict[str, Range]:
    """The range of every value of the network over calibration batches, each a tuple of its inputs. DataError for none, or for NaN."""
    found: dict[str, Range] = {}
    for number, batch in enumerate(batches):
        values: dict[str, torch.Tensor] = dict(network.constants)
        values.update(zip((name for name, _ in network.inputs), batch, strict=True))
        for kernel in network.kernels:
            values[kernel.output] = run_workload(kernel.workload, tuple(values[name] for name in kernel.inputs))
        for name, value in values.items():
            if name not in network.constants and value.is_floating_point():
                here = _range(name, value, number)
                found[name] = found[name].joined(here) if name in found else here
    if not found:
        raise DataError("no calibration batches; pass at least one batch of the network's inputs")
    return found


def _range(name: str, value: torch.Tensor, number: int) -> Range:
    low, high = (float(v) for v in value.aminmax())
    if not np.isfinite([low, high]).all():
        raise DataError(f"calibration batch {number}: value '{name}' is not finite; check the batch and the weights")
    return Range(min(low, 0.0), max(high, 0.0))


def unsigned_grid(given: Range) -> Grid:
    """[0, 255] over the range, with zero on the grid: what instructions take that multiply unsigned with signed bytes."""
    step = float(np.float32((given.high - given.low) / 255)) or 1.0  # kernels have it in float32
    return Grid(step, min(round(-given.low / step), 255), 0, 255)


def symmetric_grid(given: Range) -> Grid:
    """[-127, 127] around zero: no zero point, at the price of half the grid for values that are never negative."""
    return Grid(max(given.high, -given.low) / 127 or 1.0, 0, -127, 127)


def quantise_weight(name: str, weight: torch.Tensor) -> Weights:
    """Integers and steps of a weight [O, ...]. DataError if it is not finite."""
    array = weight.detach().double().numpy()
    if not np.isfinite(array).all():
        raise DataError(f"weight '{name}' is not finite; repair the weights before quantising")
    return Weights(*quantise_rows(array))


def quantise(
    network: Network,
    ranges: Mapping[str, Range],
    *,
    symmetric: bool = False,
    values: Collection[str] | None = None,
    kernels: Collection[str] | None = None,
) -> Quantisation:
    """The quantisation of a network in normal form, given the ranges of its values (`observe`). Pure.

    symmetric: signed grids without zero points, for targets that multiply signed numbers. Kernels whose anchor is a convolution or a linear
    map with constant weights multiply integers; the others compute on the real numbers that the integers stand for. Outputs of the network
    stay real. values, kernels: those that may have a grid and those that may multiply integers, by their outputs; None for all.
    """
    grid_of = symmetric_grid if symmetric else unsigned_grid
    weights: dict[str, Weights] = {}
    multiplying: set[str] = set()
    for kernel in network.kernels:
        name = contracted(kernel, network)
        if name is not None and (kernels is None or kernel.output in kernels):
            multiplying.add(kernel.output)
            weights.setdefault(name, quantise_weight(name, network.constants[name]))
    missing = next((n for k in network.kernels for n in (*k.inputs, k.output) if n not in ranges and _is_real(n, k, network)), None)
    if missing is not None:
        raise DataError(f"value '{missing}' has no range; calibrate the network that is quantised")
    grids = {n: grid_of(found) for n, found in ranges.items() if n not in network.outputs and (values is None or n in values)}
    return Quantisation(grids, weights, frozenset(multiplying))


def contracted(kernel: Kernel, network: Network) -> str | None:
    """The name of the weight by which a kernel's anchor multiplies its first input; None for kernels that stay real."""
    call = kernel.workload.anchor
    if call.op not in CONTRACTIONS or call.args[0] != Ref(0) or not isinstance(call.args[1], Ref):
        return None
    weight = kernel.inputs[call.args[1].index]
    return weight if weight in network.constants and kernel.inputs[0] not in network.constants else None


def _is_real(name: str, kernel: Kernel, network: Network) -> bool:
    """Whether a kernel reads or writes floating-point numbers under this name that are no parameter."""
    if name in network.constants:
        return False
    given = kernel.workload.output if name == kernel.output else kernel.workload.inputs[kernel.inputs.index(name)]
    return given.dtype.startswith("float")
