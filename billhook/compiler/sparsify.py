"""`bh.compile(sparsity=...)`: after the widths, layers are made sparse until the measured network is within the budget.

Widths take half of the way to the budget, as a factor, and columns the rest; decision 0034 says why the two are not chosen jointly.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from billhook.ir.block_sparse import BlockPattern, block_mask
from billhook.ir.errors import BudgetError, OptionError
from billhook.ir.latency import Latency
from billhook.ir.nearest import suggest
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.passes.batches import Loader, Loss
from billhook.passes.block_sparsity import block_layers, block_worth
from billhook.passes.cut import cut_graph
from billhook.passes.prune import Pruned

from .aim import Tried, aim
from .block_sparse import Offer, choose, patterns, priced, total
from .engine import Build, Engine
from .fit import BACK_OFF, CLOSE, MARGIN, MORE, ROUNDS

SPARSITIES = ("blocks", "patterns")  # columns of blocks (GRIM); taps of filters (PatDNN)


@dataclass(frozen=True)
class Sparsified:
    """chosen: patterns of the layers that are sparse; layers: how many could be. The latencies are those of the whole network."""

    chosen: Mapping[str, BlockPattern]
    layers: int
    predicted: Latency
    measured: Latency
    build: Build


def check_sparsity(name: str | None, target: Target, precision: str) -> str | None:
    """The name, if there are kernels for it. Raises OptionError."""
    if name is None:
        return None
    if name not in SPARSITIES:
        raise OptionError(f"--sparsity {name}: unknown{suggest(name, SPARSITIES)}; use one of {', '.join(SPARSITIES)}")
    if target.kind != "llvm":
        raise OptionError(f"--sparsity {name}: target {target.kind} has no sparse kernels; leave it out, or choose a processor")
    if precision != "fp32":
        raise OptionError(f"--sparsity {name}: sparse kernels are in fp32 only, not in {precision}; leave one of the two out")
    return name


def widths_budget(budget: float, dense: float) -> float:
    """Seconds that the widths are cut to where layers become sparse as well: the geometric mean of budget and dense latency."""
    return min(dense, float(np.sqrt(budget * dense)))


@dataclass(frozen=True)
class Sparsifier:
    """Chooses patterns for a network that was cut. taps: kernel patterns in place of columns. measure: seconds of a build.

    Losses are probed on the dense network, one layer at a time: the cut one is not yet trained again, and its losses say little.
    """

    engine: Engine
    program: Program
    loss: Loss
    data: Loader | None
    taps: bool
    measure: Callable[[Build], Latency]

    def run(self, pruned: Pruned, cut: Latency, budget: float) -> Sparsified:
        """The patterns that lose least within the budget (seconds), built and measured. cut: the latency before.

        Raises BudgetError where not even the sparsest patterns are fast enough.
        """
        offers, whole = self._offers(pruned)
        tried: list[Tried] = [(whole.seconds, cut.seconds)]
        best: Sparsified | None = None
        margin, before = MARGIN, None
        for turn in range(ROUNDS + MORE):
            if turn >= ROUNDS and best is not None:
                break
            goal = aim(margin * budget, tried)
            solution = choose(offers, whole, goal / whole.seconds)
            if solution.sizes == before:  # patterns come in steps
                if best is not None:
                    break
                margin *= BACK_OFF
                continue
            before = solution.sizes
            chosen = patterns(offers, solution)
            build = self._build(pruned, chosen)
            kernels, measured = total(build.network, self.engine.costs), self.measure(build)
            if measured.seconds <= budget and (best is None or measured.seconds > best.measured.seconds):
                best = Sparsified(chosen, len(offers), kernels.scaled(margin * budget / goal), measured, build)
            if CLOSE * budget <= measured.seconds <= budget:
                break
            tried.append((kernels.seconds, measured.seconds))
        if best is None:
            nearest = min(seconds for _, seconds in tried)
            raise BudgetError(f"the budget of {budget * 1e3:.3f} ms was missed: the nearest sparse network takes {nearest * 1e3:.3f} ms")
        return best

    def _offers(self, pruned: Pruned) -> tuple[tuple[Offer, ...], Latency]:
        """What the layers of the cut network may become, and the sum of its kernels."""
        assert self.program.model is not None
        network = self.engine.lower(pruned.program.graph, self.program.example).network
        layers = block_layers(network, pruned.model, taps=self.taps)
        dense = block_layers(self._dense_network(), self.program.model, taps=self.taps)
        worth = block_worth(dense, self.program.model, self.data, self.loss, progress=self.engine.progress)
        return priced(layers, network, self.engine.costs, worth, self.engine.progress), total(network, self.engine.costs)

    def _dense_network(self) -> Network:
        return self.engine.lower(cut_graph(self.program, Plan({})), self.program.example).network

    def _build(self, pruned: Pruned, chosen: Mapping[str, BlockPattern]) -> Build:
        """The network with these patterns, of a masked copy of the weights."""
        graph = copy.deepcopy(pruned.program.graph)
        with_zeros(graph, chosen)
        return self.engine.build(graph, self.program.example, chosen)


def with_zeros(model: nn.Module, chosen: Mapping[str, BlockPattern]) -> None:
    """Set to zero, in place, what the patterns leave out of the weights."""
    with torch.no_grad():
        for name, pattern in chosen.items():
            weight = model.get_parameter(name)
            weight.mul_(block_mask(weight, pattern))
