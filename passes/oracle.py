"""The oracle: the cut program must equal the masked dense program, to float tolerance."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.tensors import tensors_in

from .cut import cut_graph
from .mask import mask_graph


def cut_error(
    program: Program, plan: Plan, example: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None, *, double: bool = True
) -> float:
    """Largest difference between cut and masked outputs, relative to the largest masked output.

    double: compare in float64, where a right cut agrees to about 1e-12. Outputs that the plan itself cuts are not
    comparable and must not be freed here.
    """
    return relative_error(
        _run(cut_graph(program, plan), example or program.example, double),
        _run(mask_graph(program, plan), example or program.example, double),
    )


def relative_error(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """Largest difference over all tensors, relative to the largest finite magnitude on the right; infinite where shapes
    differ, or where one side is not a number.
    """
    scale = (
        max((float(r.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) for r in right if r.numel() and r.is_floating_point()), default=1.0)
        or 1.0
    )
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.numel():
            difference = torch.where(a == b, 0.0, (a.detach().double() - b.detach().double()).abs())  # equal infinities agree
            worst = max(worst, float(difference.nan_to_num(float("inf")).max()) / scale)
    return worst


def _run(module: torch.nn.Module, example: tuple[tuple[Any, ...], Mapping[str, Any]], double: bool) -> list[torch.Tensor]:
    args, kwargs = example
    if double:
        module = copy.deepcopy(module).double()
        args, kwargs = pytree.tree_map(
            lambda v: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v, (args, dict(kwargs))
        )
    with torch.no_grad():
        return tensors_in(module(*args, **kwargs))
