"""What a quantised network computes: sums of integer products, exact, and everything around them in float64.

Integer kernels of any target are checked against this; with symmetric grids it is also what a fixed-point target approximates.
"""

import torch

from billhook.ir.errors import DataError
from billhook.ir.network import Kernel, Network
from billhook.ir.reference import run_workload
from billhook.ir.workload import Call, Ref, TensorType, Workload

from .quantise import Quantisation, contracted

_LARGEST = 2**31


def run_quantised(network: Network, quantisation: Quantisation, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The network's outputs: real numbers, float64. Pure. DataError where a sum leaves int32."""
    integers: dict[str, torch.Tensor] = {}
    values: dict[str, torch.Tensor] = {n: t.double() if t.is_floating_point() else t for n, t in network.constants.items()}

    def keep(name: str, value: torch.Tensor) -> None:
        grid = quantisation.grids.get(name)
        if grid is None:
            values[name] = value
        else:
            integers[name] = grid.quantise(value)
            values[name] = grid.real(integers[name])

    for (name, _), value in zip(network.inputs, inputs, strict=True):
        keep(name, value.double() if value.is_floating_point() else value)
    for kernel in network.kernels:
        operands = tuple(values[name] for name in kernel.inputs)
        if kernel.output in quantisation.kernels and kernel.inputs[0] in integers:
            keep(kernel.output, _run_integer(network, quantisation, kernel, integers[kernel.inputs[0]], operands))
        else:
            keep(kernel.output, run_workload(kernel.workload, operands))
    return tuple(values[name] for name in network.outputs)


def integer_sums(network: Network, quantisation: Quantisation, kernel: Kernel, data: torch.Tensor) -> torch.Tensor:
    """The kernel's sums of integer products, without its bias: float64 that holds integers. data: integers on the grid of its input.

    The zero point is taken off before multiplying; a kernel that multiplies unsigned data subtracts its multiple afterwards instead.
    """
    name = contracted(kernel, network)
    assert name is not None
    call = kernel.workload.anchor
    weight = torch.as_tensor(quantisation.weights[name].integers).double()
    bare = Call(call.op, (Ref(0), Ref(1), None, *call.args[3:]), call.kwargs)
    types = kernel.workload.inputs[0], TensorType(tuple(weight.shape))
    shape = _anchor_shape(kernel.workload)
    sums = run_workload(
        Workload(types, ("activation", "parameter"), (bare,), TensorType(shape)), (data - quantisation.grids[kernel.inputs[0]].zero, weight)
    )
    if float(sums.abs().amax()) >= _LARGEST:
        raise DataError(f"kernel '{kernel.name}': a sum of its integer products leaves int32; keep this layer in float32")
    return sums


def _run_integer(
    network: Network, quantisation: Quantisation, kernel: Kernel, data: torch.Tensor, operands: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Sums, scaled to real numbers, with bias, then the kernel's epilogue."""
    workload, name = kernel.workload, contracted(kernel, network)
    assert name is not None
    sums = integer_sums(network, quantisation, kernel, data)
    channel = (1, -1, *[1] * (sums.ndim - 2)) if workload.anchor.op == "aten.conv2d.default" else (-1,)
    steps = torch.as_tensor(quantisation.weights[name].steps) * quantisation.grids[kernel.inputs[0]].step
    result = sums * steps.reshape(channel)
    bias = workload.anchor.args[2] if len(workload.anchor.args) > 2 else None
    if isinstance(bias, Ref):
        result = result + operands[bias.index].reshape(channel)
    return epilogue(workload, operands, result)


def epilogue(workload: Workload, operands: tuple[torch.Tensor, ...], anchor: torch.Tensor) -> torch.Tensor:
    """The calls behind the anchor, given its result."""
    if len(workload.calls) == 1:
        return anchor
    inputs = (*workload.inputs, TensorType(tuple(anchor.shape)))  # numbered as the anchor's result was, so no reference changes
    rest = Workload(inputs, (*workload.roles, "activation"), workload.calls[1:], workload.output)
    return run_workload(rest, (*operands, anchor))


def _anchor_shape(workload: Workload) -> tuple[int, ...]:
    """Shape of the anchor's result. Epilogues are elementwise with one operand of the result's shape, so it is the kernel's."""
    return workload.output.shape
