"""What workloads and networks compute, by interpreting their calls with torch: the reference that every kernel must equal."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

from . import block_sparse, grouped_matmul
from .network import Network
from .workload import Arg, Call, Ref, Workload

OPERATORS: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType(
    {**block_sparse.OPERATORS, grouped_matmul.NAME: grouped_matmul.grouped_matmul}
)
"""What workloads may call beside ATen operators."""

_LAYOUT = "billhook.layout"  # changes only where elements lie in memory, so it is the identity on logical tensors


def run_workload(workload: Workload, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The workload's output for logical (torch-ordered) inputs. Pure."""
    return run_calls(workload.calls, tensors)[-1].reshape(workload.output.shape)


def run_calls(calls: Sequence[Call], tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The inputs, then the value of every call, numbered as references number them. Pure; meta tensors give the shapes."""
    values = list(tensors)
    for call in calls:
        values.append(_run_call(call, values))
    return tuple(values)


def run_network(network: Network, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The network's outputs for logical inputs, kernel by kernel. Pure."""
    values: dict[str, torch.Tensor] = dict(network.constants)
    values.update(zip((name for name, _ in network.inputs), inputs, strict=True))
    for kernel in network.kernels:
        values[kernel.output] = run_workload(kernel.workload, tuple(values[name] for name in kernel.inputs))
    return tuple(values[name] for name in network.outputs)


def _run_call(call: Call, values: list[torch.Tensor]) -> torch.Tensor:
    def value(arg: Arg) -> object:
        if isinstance(arg, Ref):
            return values[arg.index]
        if isinstance(arg, str) and arg.startswith("torch."):  # an element type, layout or memory format
            return getattr(torch, arg.removeprefix("torch."))
        return [value(a) for a in arg] if isinstance(arg, tuple) else arg

    args = [value(a) for a in call.args]
    if call.op == _LAYOUT:
        assert isinstance(args[0], torch.Tensor)
        return args[0]
    result = (OPERATORS.get(call.op) or _aten(call.op))(*args, **{k: value(v) for k, v in call.kwargs})
    assert isinstance(result, torch.Tensor)
    return result


def _aten(op: str) -> Callable[..., object]:
    namespace, name, overload = op.split(".")
    function: Callable[..., object] = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return function
