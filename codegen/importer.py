"""From a workload's ATen calls to TVM's relax, through torch.export; errors of TVM 0.27's importer are worked around, one function each."""

import math
import warnings
from typing import Any

import numpy as np
import torch

from billhook.ir.errors import MeasureError
from billhook.ir.reference import run_workload
from billhook.ir.workload import Workload

from .importer_operators import OPERATORS
from .tvm_any import relax, tvm


class _Replay(torch.nn.Module):
    """A module that computes a workload; parameters are inputs like activations."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self._workload = workload

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return run_workload(self._workload, tensors)


def import_workload(workload: Workload) -> Any:
    """An IRModule whose "main" computes the workload on row-major tensors. MeasureError if torch or TVM cannot express it."""
    _require_single_precision(workload)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export deprecates its own internals
        return _import(workload)


def _import(workload: Workload) -> Any:
    examples = tuple(torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in workload.inputs)
    try:
        traced: Any = torch.export.export(_Replay(workload), examples)
        exported = traced.run_decompositions(_decompositions())
    except (RuntimeError, ValueError, TypeError) as error:
        raise MeasureError(f"torch cannot export {workload.anchor.op}: {_first_line(error)}") from error
    _drop_assertions(exported)
    _normalise_select(exported)
    _finite_masks(exported)
    frontend: Any = __import__("tvm.relax.frontend.torch", fromlist=["from_exported_program"])
    try:
        return frontend.from_exported_program(
            exported, unwrap_unit_return_tuple=True, run_ep_decomposition=False, custom_convert_map=dict(OPERATORS)
        )
    except (AssertionError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise MeasureError(f"TVM cannot import {workload.anchor.op}: {_first_line(error)}") from error


def _decompositions() -> Any:
    """Torch's own, less those of operators that we express better: a fold would become writes to repeated places."""
    table: Any = torch.export.default_decompositions()
    table.pop(torch.ops.aten.col2im.default, None)
    return table


def single_function(module: Any, workload: Workload, target: Any) -> Any:
    """The module's main function, legalised and fused into one TIR function whatever operators it has (intermediates stay inside).

    MeasureError if TVM cannot.
    """
    try:
        return _single_function(module, workload, target)
    except RuntimeError as error:
        around = " and what is around it" if len(workload.calls) > 1 else ""
        raise MeasureError(f"TVM cannot make a kernel of {workload.anchor.op}{around}: {_first_line(error)}") from error


def _single_function(module: Any, workload: Workload, target: Any) -> Any:
    with target:
        module = relax.transform.LegalizeOps()(module)
    module = relax.transform.ConvertToDataflow()(_without_constants(module))
    kernels = {v: f for v, f in module.functions.items() if v.name_hint != "main"}
    builder = relax.BlockBuilder(tvm.IRModule(kernels))
    fused = builder.add_func(module["main"].with_attr("Primitive", True).without_attr("global_symbol"), "fused")
    inputs = [relax.Var(f"x{i}", relax.TensorType(t.shape, t.dtype)) for i, t in enumerate(workload.inputs)]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(fused, inputs))
        builder.emit_func_output(result)
    merged = relax.transform.FuseTIR()(builder.get())
    return next(f for v, f in merged.functions.items() if v.name_hint == "fused" and isinstance(f, tvm.tirx.PrimFunc))


def _without_constants(module: Any) -> Any:
    """FuseTIR takes no tensor constants: make each a function that writes it. Those that occur are one repeated value, or a range."""
    functor: Any = __import__("tvm.relax.expr_functor", fromlist=["PyExprMutator"])

    class Inline(functor.PyExprMutator):
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            if len(call.args) < 2 or not isinstance(call.args[1], relax.Tuple):
                return call
            fields = [self._written(f) if isinstance(f, tvm.ir.Constant) else f for f in call.args[1].fields]
            return relax.call_tir(call.args[0], fields, call.ty_args[0])

        def _written(self, constant: Any) -> Any:
            array = constant.value.numpy()
            name = self.builder_.add_func(_writer(array), "constant")
            return self.builder_.emit(relax.call_tir(name, [], relax.TensorType(array.shape, str(array.dtype))))

    module = relax.transform.CanonicalizeBindings()(module)
    mutator = functor.mutator(Inline)(module)
    main = module.get_global_var("main")
    mutator.builder_.update_func(main, mutator.visit_expr(module[main]))
    return mutator.builder_.get()


def _writer(array: np.ndarray) -> Any:
    """A TIR function that writes an array whose elements, in row-major order, are an arithmetic progression."""
    flat, dtype = array.reshape(-1), str(array.dtype)
    step = (flat[1] - flat[0]).item() if array.size > 1 and array.dtype != bool else 0
    if array.size == 0 or not np.array_equal(flat, flat[0] + step * np.arange(array.size)):
        raise MeasureError(f"TVM cannot fuse a constant tensor of shape {array.shape} into a kernel; make it a parameter of the workload")

    def element(*index: Any) -> Any:
        value = tvm.tirx.const(flat[0].item(), dtype)
        position: Any = 0
        for i, size in zip(index, array.shape, strict=True):
            position = position * size + i
        return value if not step else value + tvm.tirx.Cast(dtype, position) * tvm.tirx.const(step, dtype)

    shape = [tvm.tirx.const(size, "int64") for size in array.shape]
    return tvm.te.create_prim_func([tvm.te.compute(shape, element, name="constant")])


def _drop_assertions(exported: Any) -> None:
    """A kernel cannot report what an operator asserts of its data (`one_hot` that its classes are in range): drop it."""
    graph = exported.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in str(node.target):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    exported.graph_module.recompile()


def _normalise_select(exported: Any) -> None:
    """Select with a negative index becomes an out-of-bounds read without an error: make the index positive."""
    for node in exported.graph_module.graph.nodes:
        if node.op == "call_function" and node.target == torch.ops.aten.select.int:
            source, dim, index = node.args
            if isinstance(index, int) and index < 0:
                node.args = (source, dim, index + source.meta["val"].shape[dim])
    exported.graph_module.recompile()


def _finite_masks(exported: Any) -> None:
    """relax.full with an infinity cannot be legalised: use the largest finite number, which softmax treats alike."""
    largest = torch.finfo(torch.float32).max
    for node in exported.graph_module.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(math.copysign(largest, a) if isinstance(a, float) and math.isinf(a) else a for a in node.args)
    exported.graph_module.recompile()


def _require_single_precision(workload: Workload) -> None:
    """Half-precision models import with mixed-up types: refuse them clearly."""
    for given in (*workload.inputs, workload.output):
        if given.block or given.dtype in ("float16", "bfloat16", "float64"):
            raise MeasureError(f"no kernel for {given} in {workload.anchor.op}: use float32 row-major tensors")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
