"""`bh.compile` for a board: its options, checked, and handed to `compile_fpga`. docs/decisions/0023 says why this is a way of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from billhook.goals import Goals
from billhook.ir.errors import OptionError
from billhook.ir.progress import Progress
from billhook.ir.target import Target
from billhook.options import Budget
from billhook.passes.batches import Loader, Loss
from billhook.passes.constraints import Constraint, parse_constraint
from billhook.passes.recover import Finetune, FinetuneConfig

from .fpga import FpgaOptions, board_named, compile_fpga
from .fpga_result import FpgaResult


def compile_for_board(
    model: nn.Module,
    example_inputs: Any,
    target: str | Target,
    goals: Goals,
    *,
    data: Loader | None,
    evaluate: Callable[[nn.Module], float] | None,
    finetune: FinetuneConfig | Finetune | None,
    loss: Loss | None,
    criterion: str | None,
    preset: str | None,
    constraints: Sequence[str | Constraint],
    device: str | None,
    sparsity: str | None,
    cache: Path,
    progress: Progress,
) -> FpgaResult:
    """Compile for a board. cache: where built simulators are kept. Raises OptionError for what a board does not have."""
    _refuse(goals, device, preset, sparsity)
    options = FpgaOptions(
        board_named(target.mcpu if isinstance(target, Target) else target),
        share_of_cycles(goals.latency),
        data=data,
        finetune=finetune,
        loss=loss or F.cross_entropy,
        criterion=criterion,
        constraints=tuple(parse_constraint(c, "constraints") for c in constraints),
        evaluate=evaluate,
    )
    return compile_fpga(model, only_input(example_inputs), options, cache, progress)


def _refuse(goals: Goals, device: str | None, preset: str | None, sparsity: str | None) -> None:
    """What a board does not have."""
    if device is not None:
        raise OptionError(f"--device {device}: a board is simulated, not measured; leave --device out")
    if preset is not None:
        raise OptionError(f"preset {preset}: boards have an allocation of their own; leave the preset out, or name a criterion")
    if sparsity is not None:
        raise OptionError(f"--sparsity {sparsity}: an array multiplies whole tiles and has no sparse layers; leave it out")
    for name, limit in (("memory", goals.memory), ("weights", goals.weights)):
        if limit is not None:
            raise OptionError(f"{name} {limit}: a board's memories are limits of its own; leave it out")
    if goals.low_rank:
        raise OptionError("low_rank: a board's layers are not factored; leave it out")
    if goals.objective.retain is not None:
        raise OptionError(f"objective {goals.objective.name}: a board's allocation takes a share of cycles, not a floor; leave it out")


def share_of_cycles(budget: Budget) -> float:
    """A relative budget. Raises OptionError for one in units of time, of which there is none without a board."""
    if budget.unit != "share":
        raise OptionError(f"budget {budget}: cycles on a board are simulated and no time; give a share of the dense network's, such as 50%")
    return budget.amount


def only_input(given: Any) -> torch.Tensor:
    """The one tensor that the network takes. Raises OptionError."""
    inputs: tuple[Any, ...] = cast("tuple[Any, ...]", given) if isinstance(given, tuple) else (given,)
    if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor):
        raise OptionError(f"{len(inputs)} inputs; the FPGA target takes networks with one tensor: give it alone")
    return inputs[0]
