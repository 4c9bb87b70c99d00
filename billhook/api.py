"""The compile API: trace, prune, mask (compile and load in their own files)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes.analyse import ANALYSIS
from billhook.passes.mask import mask_graph
from billhook.passes.prune import Pruned, carry_out


def trace(model: torch.nn.Module, example_inputs: Any, kwargs: Mapping[str, Any] | None = None) -> Program:
    """Capture a model and infer its axes.

    example_inputs: a tensor or a tuple of arguments. Raises CaptureError or DataError. `print(program)` shows it.
    """
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    program, _ = run_passes(capture(model, args, kwargs), ANALYSIS)  # pyright: ignore[reportUnknownArgumentType]
    return program


def prune(program: Program, kept: Mapping[str, Sequence[int]] | Plan) -> Pruned:
    """Cut a program: `kept` gives the indices to keep, for each axis that is cut. Raises AxisError."""
    return carry_out(program, make_plan(program, kept.kept if isinstance(kept, Plan) else kept))


def mask(program: Program, kept: Mapping[str, Sequence[int]] | Plan) -> torch.nn.Module:
    """The dense network with the other indices silenced: the reference that the cut must equal. Raises AxisError."""
    return mask_graph(program, make_plan(program, kept.kept if isinstance(kept, Plan) else kept))
