"""How much memory the values of a network take in one inference on a processor: TVM's plan, asked for without making any kernel."""

from typing import Any

from billhook.ir.network import Network

from .cpu.reduced import storage
from .tvm_any import relax, tvm


def activation_bytes(network: Network) -> int:
    """Bytes that the virtual machine allocates for all values that kernels make, outputs included; inputs are the caller's.

    TVM gives values that do not live together one block, whose size is that of the largest: never less than what is alive at once, often
    more. The kernels' own scratch memory is on the stack and not counted.
    """
    return allocated_bytes(_outline(network))


def allocated_bytes(module: Any) -> int:
    """What the main function of a module allocates once its memory is planned."""
    planned = tvm.transform.Sequential(planning_passes())(module)
    found: list[int] = []

    def visit(expression: Any) -> None:
        if isinstance(expression, relax.Call) and getattr(expression.op, "name", "") == "relax.memory.alloc_storage":
            found.append(int(expression.args[0].values[0]))

    relax.analysis.post_order_visit(planned["main"], visit)
    return sum(found)


def planning_passes() -> list[Any]:
    """The passes of a build up to where memory is planned."""
    t = relax.transform
    return [
        t.RewriteDataflowReshape(),
        t.ToNonDataflow(),
        t.RemovePurityChecking(),
        t.CallTIRRewrite(),
        t.StaticPlanBlockMemory(),
        t.LowerAllocTensor(),
    ]


def _outline(network: Network) -> Any:
    """A function with the network's values and calls, but of a foreign kernel; parameters are constants and left out."""
    builder: Any = relax.BlockBuilder()
    inputs = [relax.Var(f"input{i}", relax.TensorType(t.shape, t.dtype)) for i, (_, t) in enumerate(network.inputs)]
    with builder.function("main", inputs):
        values = {name: builder.emit(relax.op.reshape(v, (t.elements,))) for v, (name, t) in zip(inputs, network.inputs, strict=True)}
        shapes = {name: t.shape for name, t in network.inputs}
        for kernel in network.kernels:
            out = kernel.workload.output
            result = relax.TensorType((out.elements,), storage(out.dtype))
            arguments = [values[name] for name in kernel.inputs if name in values]
            values[kernel.output] = builder.emit(relax.call_dps_packed("kernel", arguments, result))
            shapes[kernel.output] = out.shape
        outputs = [builder.emit(relax.op.reshape(values[n], shapes[n])) for n in network.outputs]
        builder.emit_func_output(relax.Tuple(outputs))
    return builder.get()
