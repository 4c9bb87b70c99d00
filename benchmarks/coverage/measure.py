"""One row: a model captured, analysed, cut at half of every prunable axis at once, compared with its mask, and trained a step."""

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from billhook.ir.axis import Axis
from billhook.ir.capture import capture
from billhook.ir.dims import kept_mask
from billhook.ir.passes import run_passes
from billhook.ir.plan import make_plan
from billhook.ir.program import Program, state_of
from billhook.ir.tensors import tensors_in
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.mask import mask_graph
from billhook.passes.oracle import relative_error

from .case import Case
from .support import cheap_construction, redraw

TOLERANCE = 1e-7  # float64, relative to the largest output
UNAVOIDABLE = (
    *("an input of the program", "an output of the program", "no weight has this dimension"),
    *("window over this dimension", "positions laid out by this operator"),
)


@dataclass
class Row:
    """What is known of one model; a stage that was not reached leaves its fields as they are."""

    set: str
    model: str
    stage: str = "build"
    error: str = ""
    parameters: int = 0
    origin: str = ""
    nodes: int = 0
    axes: int = 0
    prunable: int = 0
    prunable_share: float = 0.0
    frozen: dict[str, int] = field(default_factory=dict[str, int])
    cut: bool = False
    kept_share: float = 1.0
    oracle_error: float = math.inf
    oracle_ok: bool = False
    moved: float = 0.0
    trained: bool = False
    wrong: bool = False
    build_s: float = 0.0
    capture_s: float = 0.0
    analysis_s: float = 0.0
    cut_s: float = 0.0


def line_of(row: Mapping[str, Any]) -> str:
    """A row in one line."""
    verdict = "ok" if row["oracle_ok"] and row["trained"] else f"{row['stage']}: {row['error'][:200]}"
    return f"{verdict} share {row['prunable_share']:.2f} error {row['oracle_error']:.1e}"


def measure(case: Case, row: Row, reached: Callable[[], None]) -> None:
    """Fill the row, stage by stage, calling `reached` between; what a stage raises is the caller's to record."""
    started = time.process_time()
    with cheap_construction():
        model, (args, kwargs) = case.build()
    redraw(model)
    model, args, kwargs, tolerance = precise(model, args, dict(kwargs))
    settle(model, args, kwargs)
    row.build_s, row.stage = time.process_time() - started, "capture"
    row.parameters = sum(p.numel() for p in model.parameters())
    program, row.capture_s = _timed(lambda: capture(model, args, kwargs))
    row.origin, row.stage = program.origin, "infer"
    program, row.analysis_s = _timed(lambda: run_passes(program, ANALYSIS)[0])
    describe(program, row)
    tolerance = max(tolerance, 1e-5 if mixes_precision(program) else 0.0)
    row.stage = "cut"
    reached()
    plan = make_plan(program, half(program))
    small, row.cut_s = _timed(lambda: cut_graph(program, plan))
    row.kept_share = sum(p.numel() for p in small.parameters()) / max(1, row.parameters)
    pruned = outputs(small, args, kwargs)
    row.cut, row.stage = True, "oracle"
    reached()
    masked = outputs(mask_graph(program, plan), args, kwargs)
    dense = outputs(program.graph, args, kwargs)
    row.oracle_error = relative_error(pruned, masked)
    row.moved = relative_error(masked, dense)
    row.oracle_ok = row.oracle_error < tolerance and (row.moved > 100 * row.oracle_error or not plan.kept)
    row.wrong = not row.oracle_ok
    row.stage = "train"
    reached()
    row.trained = trains(small, args, kwargs)
    row.stage = "done"


def precise(model: torch.nn.Module, args: Any, kwargs: Any) -> tuple[torch.nn.Module, Any, Any, float]:
    """Model and example in float64, and the tolerance; in float32 where the model's own code insists on it."""
    wide, wide_args, wide_kwargs = model.double().eval(), *pytree.tree_map(_double, (args, kwargs))
    try:
        outputs(wide, wide_args, wide_kwargs)
    except RuntimeError as failure:
        if "Float" not in str(failure) and "dtype" not in str(failure):
            raise
        return model.float().eval(), args, kwargs, 1e-3
    return wide, wide_args, wide_kwargs, TOLERANCE


def mixes_precision(program: Program) -> bool:
    """Whether a float64 model computes in float32 somewhere (norms that cast): then its results agree to float32 only."""
    return any(getattr(node.meta.get("val"), "dtype", None) == torch.float32 for node in program.nodes())


def finite(model: torch.nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the outputs are numbers."""
    return all(bool(torch.isfinite(v).all()) for v in outputs(model, args, kwargs) if v.is_floating_point())


def settle(model: torch.nn.Module, args: Any, kwargs: Any, fit: Callable[[torch.nn.Module, Any, Any], bool] = finite) -> None:
    """Redraw until the outputs are fit: some attention divides by sums that a draw can make zero, and networks whose layers
    multiply activations overflow at unit gain.
    """
    for seed in range(1, 16):
        if fit(model, args, kwargs):
            return
        redraw(model, seed, 0.85**seed)
    raise ValueError("no draw of the parameters gives outputs to compare")


def describe(program: Program, row: Row) -> None:
    """Counts of axes, and the operators that froze the others."""
    row.nodes, row.axes = sum(1 for _ in program.nodes()), len(program.axes)
    row.prunable = sum(axis.prunable for axis in program.axes)
    row.prunable_share = prunable_share(program)
    row.frozen = dict(Counter(_fault(axis) for axis in program.axes if not axis.prunable))


def _fault(axis: Axis) -> str:
    first = next((r for r in axis.frozen_because if r.why not in UNAVOIDABLE), axis.frozen_because[0])
    return f"{first.op}: {first.why}"


def prunable_share(program: Program) -> float:
    """Share of the elements of convolution and linear weights (tensors of rank 2 and more) that some prunable axis reaches."""
    gone = {axis.name: np.zeros(axis.size, dtype=np.bool_) for axis in program.axes if axis.prunable}
    total = reached = 0.0
    parameters = {id(p) for p in program.graph.parameters()}
    for node in program.nodes():
        if node.op == "get_attr" and len(program.types[node.name]) > 1:
            tensor = state_of(program.graph, str(node.target))
            if id(tensor) in parameters:
                parameters.discard(id(tensor))
                untouched = math.prod(float(kept_mask(d, gone).mean()) if d.size else 1.0 for d in program.types[node.name])
                total += tensor.numel()
                reached += tensor.numel() * (1.0 - untouched)
    return reached / total if total else 1.0


def half(program: Program) -> dict[str, list[int]]:
    """A random half of every prunable axis, at least one index."""
    generator = np.random.default_rng(0)
    return {a.name: sorted(generator.choice(a.size, max(a.least, a.size // 2), replace=False).tolist()) for a in program.axes if a.prunable}


def trains(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """One step of gradient descent changes parameters and leaves everything finite."""
    model.train()
    outputs = [
        v for v in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(v, torch.Tensor) and v.is_floating_point() and v.requires_grad
    ]
    torch.autograd.backward(torch.stack([v.square().mean() for v in outputs]).sum())
    with torch.no_grad():
        stepped = [(p, p.grad) for p in model.parameters() if p.grad is not None and bool(p.grad.any())]
        for parameter, gradient in stepped:
            parameter -= 1e-6 * gradient
    return bool(stepped) and all(bool(torch.isfinite(p).all()) for p in model.parameters())


def outputs(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Flat outputs on a private copy of the example."""
    args, kwargs = copy.deepcopy((args, dict(kwargs)))
    with torch.no_grad():
        return tensors_in(model(*args, **kwargs))


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _timed(call: Any) -> tuple[Any, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start
