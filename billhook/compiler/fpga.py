"""compile for an FPGA board: model, example, board and a budget of cycles in; a smaller model, an accelerator and its program out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.assemble import assemble
from billhook.codegen.fpga.boards import Board, find_board
from billhook.codegen.fpga.kernels import network_layers
from billhook.codegen.fpga.lowering import QuantisedNetwork, quantise_network
from billhook.codegen.fpga.pricing import Pricer
from billhook.codegen.fpga.program import Program as Machine
from billhook.codegen.fpga.search import Design, design_of, search
from billhook.codegen.fpga.simulator import simulator
from billhook.codegen.fpga.verify import check, predicted_cycles
from billhook.costmodel.partition import Partition
from billhook.ir.capture import capture
from billhook.ir.errors import DataError, OptionError
from billhook.ir.network import Network
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress, no_progress
from billhook.passes.analyse import ANALYSIS
from billhook.passes.batches import Loader, Loss, split
from billhook.passes.constraints import Constraint
from billhook.passes.cut import cut_graph
from billhook.passes.judge import repair, repaired_loss
from billhook.passes.prune import Pruned, carry_out
from billhook.passes.recover import Finetune, FinetuneConfig, recover
from billhook.passes.rescore import rescored
from billhook.passes.saliency import Data, Scores
from billhook.passes.saliency_criteria import chosen_criterion, score_axes

from .fpga_cost import dense_partition, fpga_target
from .fpga_prune import Allocation, allocate, best_allocation
from .fpga_result import FpgaResult, IntegerNetwork

_DESIGNS = 4  # designs for which sizes are allocated
_AIMS = 3  # allocations besides the first, each aiming lower
_SAMPLES = 64  # for calibration
_BATCHES = 16  # for scores


@dataclass(frozen=True)
class FpgaOptions:
    """What to make for a board.

    cycles: the budget, as a share of the fastest dense design's modelled cycles (1: no pruning). accelerator: the shape, or None
    to search. data: batches (inputs, target) for calibration, scores and recovery; without, the example calibrates.
    evaluate: model -> number, asked of the dense, the pruned and the int8 network.
    """

    board: Board
    cycles: float = 1.0
    accelerator: Accelerator | None = None
    data: Loader | None = None
    finetune: FinetuneConfig | Finetune | None = None
    loss: Loss = F.cross_entropy
    criterion: str | None = None
    constraints: tuple[Constraint, ...] = ()
    evaluate: Callable[[nn.Module], float] | None = None


def compile_fpga(
    model: nn.Module, example: torch.Tensor, options: FpgaOptions, cache: Path | None, progress: Progress = no_progress
) -> FpgaResult:
    """Search an accelerator for a board, prune on its grid, quantise, and simulate one sample against the integer reference.

    example: one sample [1, ...]. cache: where built simulators are kept; None: nothing is simulated. Raises CaptureError, OptionError
    (what does not fit, and what would), BudgetError, DataError, MeasureError where the simulation differs from the reference.
    """
    if example.shape[0] != 1:
        raise OptionError(f"the example has a batch of {example.shape[0]}; the accelerator takes one sample: give [1, ...]")
    program, _ = run_passes(capture(model, (example,), {}), ANALYSIS)
    parts = dense_partition(program, fpga_target(options.board.name, options.accelerator))
    designs = _designs(parts, options, progress)
    dense = designs[0]
    plan, chosen, budget = Plan({}), dense, None
    if options.cycles < 1:
        budget = round(options.cycles * dense.cycles)
        allocation = _fit(program, parts, designs, options, budget, example)
        plan, chosen = allocation.plan, allocation.design
    pruned = carry_out(program, plan)
    if plan.kept:
        if options.data is not None:
            repair(program, pruned, _data(options))
        recover(pruned.model, model, options.data, options.finetune, options.loss, progress)
    pricer = Pricer(chosen.accelerator, options.board.memory)
    network, quantised, machine = _assembled(pruned, pricer, options, example)
    final = design_of(chosen.accelerator, network_layers(network), options.board, pricer)
    sample = next(iter(calibration_samples(options.data, example)))
    checked = None
    if cache is not None:
        progress("build and run the simulator", 0, 0)
        checked = check(quantised, machine, simulator(chosen.accelerator, cache), sample.numpy(), options.board.memory)
    found = _quality(options, model, pruned.model, quantised)
    return FpgaResult(options.board, program, pruned, final, dense, quantised, machine, checked, sample, designs, budget, found)


def _quality(options: FpgaOptions, dense: nn.Module, pruned: nn.Module, quantised: QuantisedNetwork) -> dict[str, float]:
    """What the user's function says of the float networks and of the integer reference, which the hardware equals."""
    if options.evaluate is None:
        return {}
    asked = {"dense": dense, "pruned": pruned.eval(), "int8": IntegerNetwork(quantised)}
    return {name: float(options.evaluate(module)) for name, module in asked.items()}


def _designs(parts: Partition, options: FpgaOptions, progress: Progress) -> tuple[Design, ...]:
    layers = network_layers(parts.network)
    if options.accelerator is not None:
        return (design_of(options.accelerator, layers, options.board, Pricer(options.accelerator, options.board.memory)),)
    return search(layers, options.board, progress)


def _fit(
    program: Program, parts: Partition, designs: Sequence[Design], options: FpgaOptions, budget: int, example: torch.Tensor
) -> Allocation:
    """Sizes and a design of which the assembled program is within the budget, for which the allocation may have to aim lower.

    It prices layers; the program also copies and requantises maps between them. Raises BudgetError.
    """
    tried = distinct_arrays(designs)[:_DESIGNS]
    pricers = {d.accelerator: Pricer(d.accelerator, options.board.memory) for d in tried}

    def best(scores: Scores, goal: int) -> Allocation:
        return best_allocation(program, parts, tried, pricers, scores, goal, options.constraints)

    scores, goal = fpga_scores(program, options), budget
    found = best(scores, goal)
    if options.data is not None:
        anew = _less_lost(program, parts, found, pricers[found.design.accelerator], scores, budget, options)
        if anew is not scores:
            scores, found = anew, best(anew, goal)
    for _ in range(_AIMS):
        pricer = pricers[found.design.accelerator]
        machine = _assembled(carry_out(program, found.plan), pricer, options, example)[2]
        taken = predicted_cycles(machine, options.board.memory)
        if taken <= budget:
            break
        goal = goal * budget // taken
        found = best(scores, goal)
    return found


def _less_lost(
    program: Program, parts: Partition, plain: Allocation, pricer: Pricer, scores: Scores, budget: int, options: FpgaOptions
) -> Scores:
    """The plain scores, or those taken anew on the way to the budget if their plan loses less once it is repaired (decision 0018)."""
    design, data = plain.design, _data(options)

    def allocated(found: Scores, cycles: float) -> Allocation:
        return allocate(program, parts, design, pricer, found, round(cycles), options.constraints)

    anew = rescored(_criterion(options), program, scores, data, lambda s, c: allocated(s, c).sizes, budget, design.cycles)
    losses = [repaired_loss(program, a.plan, data) for a in (plain, allocated(anew, budget))]
    return anew if losses[1] < losses[0] else scores


def _assembled(pruned: Pruned, pricer: Pricer, options: FpgaOptions, example: torch.Tensor) -> tuple[Network, QuantisedNetwork, Machine]:
    """The cut network's kernels, the same in integers, and the accelerator's program."""
    network = dense_partition(pruned.program, fpga_target(options.board.name, pricer.accelerator)).network
    quantised = quantise_network(network, calibration_samples(options.data, example))
    return network, quantised, assemble(quantised, pricer)


def distinct_arrays(designs: Iterable[Design]) -> tuple[Design, ...]:
    """The best design of each array shape, best first."""
    found: dict[tuple[int, int], Design] = {}
    for design in designs:
        found.setdefault((design.accelerator.rows, design.accelerator.columns), design)
    return tuple(found.values())


def fpga_scores(program: Program, options: FpgaOptions) -> Scores:
    """Saliency by the chosen criterion: by default taylor with data, l2 without."""
    data = _data(options) if options.data is not None else None
    return score_axes(_criterion(options), program, cut_graph(program, Plan({})), data)


def _data(options: FpgaOptions) -> Data:
    """The batches that plans are scored, judged and repaired by."""
    assert options.data is not None
    return Data(options.data, options.loss, _BATCHES)


def _criterion(options: FpgaOptions) -> str:
    return chosen_criterion(options.criterion, data=options.data is not None)


def calibration_samples(data: Loader | None, example: torch.Tensor, count: int = _SAMPLES) -> Iterable[torch.Tensor]:
    """Single samples [1, ...] of the data's inputs; without data the example. Raises DataError for batches of several inputs."""
    if data is None:
        yield example
        return
    left = count
    for batch in islice(data, count):
        inputs = split(batch)[0]
        if not isinstance(inputs, torch.Tensor) or inputs.shape[1:] != example.shape[1:]:
            raise DataError("calibration needs batches whose inputs are one tensor of the example's shape; give such a loader")
        yield from inputs[:left].split(1)
        left -= min(left, len(inputs))
        if left <= 0:
            return


def quality(network: QuantisedNetwork, samples: Iterable[tuple[torch.Tensor, int]]) -> float:
    """Share of samples [1, ...] whose largest output is the label's: of the integer reference, which the hardware equals."""
    right = [int(network.outputs(x.numpy()).reshape(-1).argmax()) == label for x, label in samples]
    return sum(right) / len(right) if right else float("nan")


def board_named(name: str) -> Board:
    """The board of a target such as "fpga:ulx3s". Raises OptionError that lists the known ones."""
    return find_board(name.removeprefix("fpga").removeprefix(":"))
