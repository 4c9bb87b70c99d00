"""What the commands do, given parsed options. torch, TVM and the library above them are imported inside, on use."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from billhook import options, progress
from billhook.goals import Goals, as_arguments
from billhook.ir.errors import OptionError

from .places import simulator_cache

if TYPE_CHECKING:
    import torch

    from billhook.ir.latency import Latency
    from billhook.passes.constraints import Constraint

UNMET = 1


@dataclass(frozen=True, slots=True)
class CompileJob:
    """All that `billhook compile` was told."""

    model: options.Reference
    inputs: tuple[options.InputSpec, ...]
    data: options.Reference | None
    evaluate: options.Reference | None
    finetune: options.Reference | None
    goals: Goals
    target: str
    threads: int
    criterion: str | None
    preset: str | None
    constraints: "tuple[Constraint, ...]"
    device: str | None
    precision: str
    sparsity: str | None
    out: Path
    database: Path


def run_demo(out: Path, database: Path) -> int:
    """Run the demo; the exit status says whether the measured latency met the budget."""
    from billhook import demo

    with progress.shown() as listener:
        record = demo.run(out, database=database, progress=listener)
    typer.echo(out / "report.html")
    return 0 if record.met else UNMET


def run_trace(
    model: options.Reference, inputs: tuple[options.InputSpec, ...], *, text: bool, axis: str | None = None, drawing: Path | None = None
) -> None:
    """Print the axes of the user's model, or its whole typed program, or one axis explained; draw it where asked to."""
    module = build_model(model)
    from billhook import api

    from .axes import show_axes

    program = api.trace(module, example_tensors(inputs))
    if drawing is not None:
        from billhook.drawing import draw

        draw(program, drawing)
    if text:
        typer.echo(str(program))
    elif axis is not None:
        typer.echo(program.explain(axis))
    else:
        show_axes(program)


def run_compile(job: CompileJob) -> int:
    """Compile the user's model and save the result; the exit status says whether the measured latency met the budget."""
    module = build_model(job.model)
    data = options.call(job.data, "--data") if job.data else None
    evaluate = options.resolve(job.evaluate, "--evaluate") if job.evaluate else None
    finetune = options.resolve(job.finetune, "--finetune") if job.finetune else None
    from billhook import api
    from billhook.compiler.fpga_result import FpgaResult

    from .show import show_result

    with progress.shown() as listener:
        result = api.compile(
            module,
            example_tensors(job.inputs),
            target=job.target,
            threads=job.threads,
            criterion=job.criterion,
            preset=job.preset,
            constraints=job.constraints,
            device=job.device,
            precision=job.precision,
            sparsity=job.sparsity,
            **as_arguments(job.goals),
            data=data,
            evaluate=evaluate,
            finetune=finetune,
            database=job.database,
            progress=listener,
        )
    result.save(job.out)
    if isinstance(result, FpgaResult):
        typer.echo(f"{result}\n{job.out}")
    else:
        result.report(job.out / "report.html")
        show_result(result, job.out)
    return 0 if result.met else UNMET


def run_load(saved: Path, model: options.Reference) -> None:
    """Re-apply a saved plan to a fresh model and print its size."""
    factory = user_object(model, "MODEL")
    from billhook import api

    module = api.load(saved, factory)
    parameters = sum(p.numel() for p in module.parameters())
    typer.echo(f"loaded {saved}: {type(module).__qualname__}, {parameters:,} parameters")


def run_verify(bundle: Path) -> int:
    """Verify a bundle and time it; the exit status says whether its outputs are right and its latency is within its budget."""
    from billhook.codegen import bundle as bundles
    from billhook.codegen.fpga.bundle import is_fpga_bundle, verify_fpga
    from billhook.costmodel.statistics import interleave

    if is_fpga_bundle(bundle):
        simulated = verify_fpga(bundle, simulator_cache())
        typer.echo(str(simulated))
        return 0 if simulated.ok else UNMET

    def timed(call: Callable[[], object]) -> "Latency":
        def once() -> None:
            call()

        return interleave({"bundle": once})["bundle"].latency

    found = bundles.verify(bundle, timed)
    typer.echo(str(found))
    return 0 if found.ok and found.within_budget is not False else UNMET


def user_object(reference: options.Reference, option: str) -> Any:
    """An object of the user's, looked up in the current folder first, as `python -m` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return options.resolve(reference, option)


def build_model(reference: options.Reference) -> "torch.nn.Module":
    """Call the user's function and check that it returns a module."""
    user_object(reference, "MODEL")
    model = options.call(reference, "MODEL")
    import torch

    if not isinstance(model, torch.nn.Module):
        raise OptionError(f"MODEL {reference}: returned {type(model).__qualname__}, not a torch.nn.Module; return the trained module")
    return model


def example_tensors(inputs: tuple[options.InputSpec, ...]) -> "tuple[torch.Tensor, ...]":
    """Seeded example inputs: normal numbers for floats, zeros and ones for the rest (valid as token ids and as masks)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    examples: list[torch.Tensor] = []
    for spec in inputs:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            examples.append(torch.randn(spec.shape, generator=generator).to(dtype))
        else:
            examples.append(torch.randint(0, 2, spec.shape, generator=generator).to(dtype))
    return tuple(examples)
