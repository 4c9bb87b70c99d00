"""The compile API: trace, prune, mask, compile, load."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from billhook.goals import make_goals
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan, make_plan
from billhook.ir.planfile import load_plan, load_weights
from billhook.ir.program import Program
from billhook.ir.progress import Progress, no_progress
from billhook.ir.target import Target
from billhook.options import Budget, MemoryBudget, default_database
from billhook.passes.analyse import ANALYSIS
from billhook.passes.batches import Loader, Loss
from billhook.passes.constraints import Constraint
from billhook.passes.low_rank import implant_by_name
from billhook.passes.mask import mask_graph
from billhook.passes.prune import Pruned, carry_out
from billhook.passes.recover import Finetune, FinetuneConfig
from billhook.passes.worth_descent import TRIALS

if TYPE_CHECKING:
    from billhook.compiler.result import Result


def trace(model: torch.nn.Module, example_inputs: Any, kwargs: Mapping[str, Any] | None = None) -> Program:
    """Capture a model and infer its axes.

    example_inputs: a tensor or a tuple of arguments. Raises CaptureError or DataError. `print(program)` shows it.
    """
    args: tuple[Any, ...] = cast("tuple[Any, ...]", example_inputs) if isinstance(example_inputs, tuple) else (example_inputs,)
    program, _ = run_passes(capture(model, args, kwargs), ANALYSIS)
    return program


def prune(program: Program, kept: Mapping[str, Sequence[int]] | Plan) -> Pruned:
    """Cut a program: `kept` gives the indices to keep, for each axis that is cut. Raises AxisError."""
    return carry_out(program, make_plan(program, kept.kept if isinstance(kept, Plan) else kept))


def mask(program: Program, kept: Mapping[str, Sequence[int]] | Plan) -> torch.nn.Module:
    """The dense network with the other indices silenced: the reference that the cut must equal. Raises AxisError."""
    return mask_graph(program, make_plan(program, kept.kept if isinstance(kept, Plan) else kept))


def compile(  # noqa: A001
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str | Target = "llvm",
    latency: Budget | float | str | None = None,
    data: Loader | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    finetune: FinetuneConfig | Finetune | None = None,
    loss: Loss | None = None,
    criterion: str | None = None,
    preset: str | None = None,
    objective: str = "importance",
    retain: float | str | None = None,
    memory: MemoryBudget | float | str | None = None,
    weights: MemoryBudget | float | str | None = None,
    score_batches: int = 16,
    probe_batches: int = 2,
    trials: int = TRIALS,
    peers: Sequence[str] = ("torch eager",),
    threads: int = 1,
    database: Path | None = None,
    constraints: Sequence[str | Constraint] = (),
    device: str | None = None,
    precision: str = "fp32",
    sparsity: str | None = None,
    low_rank: bool = False,
    progress: Progress = no_progress,
) -> "Result | Any":
    """Cut a trained network to a measured latency budget and compile it.

    example_inputs: a tensor or a tuple; their shapes are those of the compiled network. latency: 0.5 or "50%" of the best dense latency
    (ours and the peers'), or "12ms"; half by default. data: batches (inputs, target), for scores and recovery; without data, weights are
    scored by magnitude and nothing is trained. finetune: a config, or a function (model, dense model) that trains the first in place.
    loss: (output, target) -> scalar, cross entropy by default. evaluate: model -> number, for the report. preset: a method of the
    literature in place of our allocation ("halp", "smcp", "mdp", "nvit", "netadapt", "uniform", "flops"; docs/criteria.md), with its
    criterion unless one is named. objective: "importance", the most within the limits; or "latency" or "memory", the least that retains a
    share of the importance (retain: 0.9 or "90%") within the others; the least latency has to be below the dense one where no limit is
    given. memory: "2MB", or 0.5 or "50%" of the dense network's: the most that the values between kernels may take in a build, kept exactly
    besides the latency. weights: the same for the bytes of weights. constraints: such as "uniform(*.qkv.out.0)" or
    `bh.divisible("*.mlp.*", 64)`, kept exactly
    (`billhook.passes.constraints`). score_batches: how many batches the scores are averaged over; probe_batches: on how many each probe of
    the loss runs; trials: how many plans are repaired and judged at most while axes are weighed by what their plans lose (0: none).
    database: where measurements are kept. device: name of a remote device (`billhook device add`) on which kernels and
    networks are measured instead of here; its own processor is then the target, and no peers take part. precision: "bf16" stores values and
    multiplies in bfloat16 where there are kernels for it; sums and the peers stay in float32. "int8" does so in 8-bit integers, on ranges
    that it takes from the data, or without data from the example inputs. sparsity: "blocks" makes layers sparse by columns as well (GRIM),
    "patterns" 3x3 convolutions by taps (PatDNN), each layer by its measured price and what the loss says of it; weights then have zeros,
    which `load` and the bundle keep. low_rank: layers may become two thin ones, of a rank that is chosen as widths are, where both forms'
    measured prices and the loss say that it pays (HAP); needs data.

    target "fpga:BOARD" (zcu102, zcu104, pynq-z2, ulx3s) makes an int8 accelerator instead: the budget is a share of the dense network's
    cycles, which are simulated and no time, and the result an `FpgaResult` (docs/fpga.md); what is about timing has no meaning there.

    Raises CaptureError, DataError, OptionError, MeasureError, DeviceError, and BudgetError stating the smallest reachable latency.
    """
    shared: dict[str, Any] = {"data": data, "evaluate": evaluate, "finetune": finetune, "loss": loss, "criterion": criterion}
    shared |= (method := {"preset": preset, "sparsity": sparsity}) | {"constraints": constraints, "device": device}
    sought = make_goals(latency, objective=objective, retain=retain, memory=memory, weights=weights, low_rank=low_rank, **method)
    store, what = database or default_database({}), (model, example_inputs, target, sought)
    if (target.kind if isinstance(target, Target) else target.partition(":")[0]) == "fpga":
        return _compile_for_board(*what, **shared, cache=store.parent / "simulators", progress=progress)
    from billhook.compiler.pipeline import make_job, run_job  # TVM is loaded only by those who compile

    shared |= {"score_batches": score_batches, "probe_batches": probe_batches, "trials": trials, "peers": peers}
    return run_job(make_job(*what, **shared, database=store, threads=threads, precision=precision), progress)


def _compile_for_board(*what: Any, **options: Any) -> Any:
    from billhook.compiler.fpga_job import compile_for_board

    return compile_for_board(*what, **options)


def load(folder: str | Path, model_factory: Callable[[], nn.Module]) -> nn.Module:
    """The pruned network that `Result.save` wrote, rebuilt from a fresh model: bit-equal, trainable, without pickle.

    Raises PlanError where the files are damaged or the model is another one.
    """
    saved = load_plan(Path(folder))
    args, kwargs = saved.example()
    program = implant_by_name(trace(model_factory(), args, kwargs), saved.factored)
    pruned = carry_out(program, saved.plan(program))
    module = pruned.model if saved.form == "module" else pruned.program.graph
    load_weights(Path(folder), module)
    return module.eval()
