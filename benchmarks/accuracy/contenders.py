"""Who competes: ours, the presets, the criteria on our allocation, and Torch-Pruning's pruners."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes.allocate import solve
from billhook.passes.allocation_presets import PRESETS, Preset, Task, within
from billhook.passes.allocation_task import preset_task
from billhook.passes.batches import split
from billhook.passes.cut import cut_graph
from billhook.passes.probe import plan_loss, probed_worth
from billhook.passes.saliency import Data, Floats, Scores, best_indices, retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import width_problem

from .bench import Bench
from .data import Split

TORCH_PRUNING = ("tp-l2", "tp-group-norm", "tp-taylor")
CONTENDERS = ("ours", "uniform", "halp", "mdp", "flops", "tp-group-norm", "smcp", "nvit", "tp-l2", "tp-taylor", "netadapt")
SCORED = 8  # batches of 100 pictures
PROBED = 2


@dataclass(slots=True)
class Seen:
    """What a contender may look at: training pictures only."""

    bench: Bench
    model: nn.Module
    train: Split

    def data(self) -> Data:
        return Data(self.train.loader(100), F.cross_entropy, SCORED)


class Ranking:
    """Scores and worths of one method on one network, and the sizes that it takes for a share of the dense latency."""

    def __init__(self, preset: Preset, seen: Seen) -> None:
        self.preset, self.seen = preset, seen
        program = seen.bench.program
        self.scores: Scores = score_axes(preset.criterion, program, cut_graph(program, Plan({})), seen.data())
        self.worth: Mapping[str, Floats] = {name: retained(s) for name, s in self.scores.items()}
        self._probed_at: float | None = None

    def sizes(self, goal: float, share: float) -> dict[str, int]:
        """Sizes for `goal` predicted seconds. share: the latency that is wanted in the end, around which axes are probed, once."""
        if self.preset.probes and self._probed_at != share:
            self._probe(share)
        return within(self.preset, self._task(), goal)

    def plan(self, sizes: Mapping[str, int]) -> Plan:
        """The plan that keeps the best indices."""
        program = self.seen.bench.program
        kept = {n: best_indices(self.scores[n], s) for n, s in sizes.items() if s < program.axis(n).size}
        return make_plan(program, kept)

    def _task(self) -> Task:
        bench = self.seen.bench
        calibration = [split(b) for b in self.seen.train.first(200).loader(100)]

        def loss(sizes: Mapping[str, int]) -> float:
            return plan_loss(bench.program, self.plan(sizes), calibration, F.cross_entropy)

        return preset_task(bench.program, self.worth, bench.candidates, bench.tables(), bench.operations, loss)

    def _probe(self, share: float) -> None:
        """Two rounds, as the compiler does: around a uniform cut, then around the plan found by them."""
        bench = self.seen.bench
        goal = share * bench.dense_prediction
        base = within(PRESETS["uniform"], self._task(), goal)
        loader = self.seen.train.loader(200)
        for turn in range(2):
            full = {name: sizes[-1] for name, sizes in bench.candidates.items()} | base
            self.worth = probed_worth(bench.program, self.scores, bench.candidates, full, loader, F.cross_entropy, PROBED)
            if turn == 0:
                base = dict(solve(width_problem(bench.program, self.worth, bench.candidates, bench.tables()), goal).sizes)
        self._probed_at = share


def preset_of(contender: str) -> Preset:
    """The preset of a contender: `criterion/NAME` is that criterion's plain sums under our exact allocation."""
    if contender.startswith("criterion/"):
        return Preset(contender.removeprefix("criterion/"), blocks=True)
    return PRESETS[contender]


def torch_pruning(name: str, model: nn.Module, example: torch.Tensor, ratio: float, batch: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    """A copy of the model cut by one of Torch-Pruning's pruners to a channel ratio, widths rounded to 8 as ours are."""
    tp: Any = import_module("torch_pruning")
    copied = copy.deepcopy(model).eval()
    heads = {m.qkv: m.heads for m in copied.modules() if hasattr(m, "qkv")}
    importances: dict[str, Callable[[], Any]] = {
        "tp-l2": lambda: tp.importance.MagnitudeImportance(p=2),
        "tp-group-norm": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "tp-taylor": tp.importance.GroupTaylorImportance,
    }
    if name == "tp-taylor":
        torch.autograd.backward(F.cross_entropy(copied(batch[0]), batch[1]))
    pruner = tp.pruner.BasePruner(
        copied,
        example,
        importance=importances[name](),
        global_pruning=name != "tp-l2",  # l2: the same ratio everywhere, its default; the others rank all channels together
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        round_to=8 if not heads else None,
        ignored_layers=[copied.head],
        num_heads=heads,
        prune_head_dims=True,
        unwrapped_parameters=[(copied.positions, 2)] if hasattr(copied, "positions") else None,
    )
    pruner.step()
    copied.zero_grad(set_to_none=True)
    return copied


def lowered(program: Program) -> Any:
    """The graph of a program, free in its batch, as the engine takes it."""
    return cut_graph(program, Plan({}))
