"""Block column sparsity chosen layer by layer: each pattern of a layer has its measured price, and the allocator buys within a budget.

The axes keep their sizes here: give a network that `compile` has cut to have both. On a target that is neither this machine nor a
device, prices are static estimates, and so is everything that follows from them.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from billhook.costmodel.measured import MeasuredCosts
from billhook.ir.block_sparse import BlockPattern
from billhook.ir.capture import capture
from billhook.ir.latency import Latency
from billhook.ir.network import Network
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress, no_progress
from billhook.ir.workload import Workload
from billhook.passes.allocate import Factor, Problem, Solution, Variable, solve
from billhook.passes.analyse import ANALYSIS
from billhook.passes.batches import Loader, Loss
from billhook.passes.block_sparsity import BlockLayer, block_layers, block_worth, masked, sparse_workload
from billhook.passes.cut import cut_graph
from billhook.passes.recover import Finetune, FinetuneConfig, recover

from .engine import Build, Engine


@dataclass(frozen=True)
class Offer:
    """A layer with what the allocator may choose from: prices [patterns + 1] in seconds, sparsest first, dense last; worth likewise."""

    layer: BlockLayer
    prices: tuple[Latency, ...]
    worth: np.ndarray

    @property
    def choices(self) -> tuple[BlockPattern | None, ...]:
        return (*reversed(self.layer.patterns), None)


@dataclass(frozen=True)
class BlockResult:
    """model: masked, trainable, its zeros plain numbers. chosen: patterns of the sparse layers. dense, predicted: sums of prices."""

    model: nn.Module
    chosen: Mapping[str, BlockPattern]
    offers: tuple[Offer, ...]
    solution: Solution
    dense: Latency
    predicted: Latency
    build: Build


def prune_blocks(
    program: Program,
    engine: Engine,
    share: float,
    loss: Loss,
    *,
    data: Loader | None = None,
    finetune: FinetuneConfig | Finetune | None = None,
    taps: bool = False,
    progress: Progress = no_progress,
) -> BlockResult:
    """Make layers sparse until the kernels take `share` of their dense time. taps: kernel patterns in place of columns.

    Raises BudgetError with the smallest reachable latency, DataError, MeasureError.
    """
    assert program.model is not None
    network = engine.lower(cut_graph(program, Plan({})), program.example).network
    layers = block_layers(network, program.model, taps=taps)
    offers = priced(layers, network, engine.costs, block_worth(layers, program.model, data, loss, progress=progress), progress)
    dense = total(network, engine.costs)
    solution = choose(offers, dense, share)
    chosen = patterns(offers, solution)
    model = copy.deepcopy(program.model)
    with masked(model, chosen):
        recover(model, program.model, data, finetune, loss, progress)
    build = build_sparse(model.eval(), program, chosen, engine)
    return BlockResult(model, chosen, offers, solution, dense, total(build.network, engine.costs), build)


def priced(
    layers: tuple[BlockLayer, ...],
    network: Network,
    costs: MeasuredCosts,
    worth: Mapping[str, np.ndarray],
    progress: Progress = no_progress,
) -> tuple[Offer, ...]:
    """The layers' offers: the price of a pattern is that of its fastest kernel. Patterns for which there is no kernel are left out."""
    forms = {layer.parameter: [_forms(layer, network, pattern) for pattern in (*reversed(layer.patterns), None)] for layer in layers}
    costs.cost_many((w for listed in forms.values() for form in listed for w in form), progress, "measure sparse kernels")
    offers: list[Offer] = []
    for layer in layers:
        found = [[costs.sample(w).latency for w in form] for form in forms[layer.parameter]]
        made = [i for i, latencies in enumerate(found) if all(latencies)]
        patterns = tuple(layer.patterns[-1 - i] for i in reversed(made[:-1]))
        if patterns:
            prices = tuple(_added([x for x in found[i] if x]) for i in made)
            offers.append(Offer(replace(layer, patterns=patterns), prices, worth[layer.parameter][made]))
    return tuple(offers)


def _forms(layer: BlockLayer, network: Network, pattern: BlockPattern | None) -> list[Workload]:
    """The workloads of a layer's kernels with a pattern, or dense."""
    dense = [network.kernels[k].workload for k in layer.kernels]
    return dense if pattern is None else [sparse_workload(w, pattern) for w in dense]


def patterns(offers: tuple[Offer, ...], solution: Solution) -> dict[str, BlockPattern]:
    """What a solution chose, by weight, without the layers that stay dense."""
    return {o.layer.parameter: p for o in offers if (p := o.choices[solution.sizes[o.layer.parameter]]) is not None}


def choose(offers: tuple[Offer, ...], dense: Latency, share: float) -> Solution:
    """The patterns that keep the most worth within `share` of the dense time. Raises BudgetError."""
    variables = {o.layer.parameter: Variable(tuple(range(len(o.prices))), o.worth - o.worth.min()) for o in offers}
    factors = tuple(Factor(o.layer.parameter, (o.layer.parameter,), np.array([p.seconds for p in o.prices])) for o in offers)
    constant = dense.seconds - sum(o.prices[-1].seconds for o in offers)
    return solve(Problem(variables, factors, constant), share * dense.seconds)


def total(network: Network, costs: MeasuredCosts) -> Latency:
    """The sum of the kernels' prices; what is between kernels is not in it."""
    return _added([latency for k in network.kernels if (latency := costs.cost(k.workload).latency)])


def _added(latencies: list[Latency]) -> Latency:
    provenance = latencies[0].provenance if latencies else "predicted"
    return Latency(sum(x.seconds for x in latencies), sum(x.low for x in latencies), sum(x.high for x in latencies), provenance)


def build_sparse(model: nn.Module, program: Program, chosen: Mapping[str, BlockPattern], engine: Engine) -> Build:
    """Compile a masked model with sparse kernels, and compare with torch on the example."""
    captured, _ = run_passes(capture(model, *program.example), ANALYSIS)
    return engine.build(cut_graph(captured, Plan({})), captured.example, chosen)
