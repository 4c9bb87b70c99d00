"""The oracle as tests use it: parameters that hide nothing, float64, and a mask that must change the output."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from redrawn import redraw
from torch.utils import _pytree as pytree

from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import make_plan
from billhook.ir.program import Program
from billhook.ir.tensors import tensors_in
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.mask import mask_graph
from billhook.passes.oracle import relative_error

EQUAL = 1e-9  # float64, relative to the largest output
MOVED = 1e-6  # what a mask has to change at least: an oracle that compares two untouched networks shows nothing

Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Bench:
    """An analysed network on its example, with its dense outputs."""

    program: Program
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dense: list[torch.Tensor]

    def outputs(self, module: torch.nn.Module) -> list[torch.Tensor]:
        """Flat outputs on a private copy of the example."""
        args, kwargs = copy.deepcopy((self.args, dict(self.kwargs)))
        with torch.no_grad():
            return tensors_in(module(*args, **kwargs))

    def errors(self, kept: Kept) -> tuple[float, float]:
        """How far the cut is from the mask, and how far the mask is from the dense network."""
        plan = make_plan(self.program, kept)
        masked = self.outputs(mask_graph(self.program, plan))
        return relative_error(self.outputs(cut_graph(self.program, plan)), masked), relative_error(masked, self.dense)

    def check(self, kept: Kept) -> None:
        """Assert that the cut equals the mask, and that the mask changes something."""
        error, moved = self.errors(kept)
        assert error < EQUAL, f"cut and mask differ by {error:.1e} for {kept}"
        assert moved > MOVED, f"the mask changes nothing ({moved:.1e}) for {kept}"

    def prunable(self) -> list[str]:
        return [axis.name for axis in self.program.axes if axis.prunable]

    def half(self, names: Sequence[str] | None = None, seed: int = 0) -> dict[str, list[int]]:
        """A random half of the named axes (all prunable ones), at least one index of each."""
        generator = np.random.default_rng(seed)
        axes = [self.program.axis(name) for name in names or self.prunable()]
        return {a.name: sorted(generator.choice(a.size, max(a.least, a.size // 2), replace=False).tolist()) for a in axes}

    def check_every_axis(self) -> None:
        """Each prunable axis alone at half and, where it may vanish, at nothing; then all together."""
        assert self.prunable(), "nothing is prunable"
        for name in self.prunable():
            self.check(self.half([name]))
            if self.program.axis(name).additive:
                self.check({name: []})
        self.check(self.half(seed=1))


def bench(model: torch.nn.Module, *args: Any, **kwargs: Any) -> Bench:
    """Redraw a model's parameters, capture it in float64 and analyse it, verifying between passes."""
    redraw(model)
    model = model.double().eval()
    args, kwargs = pytree.tree_map(_double, (args, kwargs))
    program, _ = run_passes(capture(model, args, kwargs), ANALYSIS)
    made = Bench(program, args, kwargs, [])
    return Bench(program, args, kwargs, made.outputs(program.graph))


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
