"""Random: the control that every criterion has to beat."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from billhook.ir.program import Program

from .saliency import Gradients, Scores


@dataclass(frozen=True, slots=True)
class Random:
    """Evenly distributed in (0, 1), by axis name and seed: independent of the order of the axes. No unit."""

    seed: int = 0

    def __call__(self, program: Program, _module: torch.nn.Module, _gradients: Iterable[Gradients] = (), /) -> Scores:
        return {a.name: np.random.default_rng([self.seed, zlib.crc32(a.name.encode())]).uniform(size=a.size) for a in program.axes}
