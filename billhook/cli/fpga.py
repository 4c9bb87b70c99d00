"""`billhook fpga`: cut a model to a budget of cycles, and make the accelerator and program for a board."""

from pathlib import Path
from typing import Annotated

import typer

from billhook import options
from billhook.ir.errors import OptionError

from .places import simulator_cache

UNMET = 1


def compile_for_board(
    model: options.Reference, inputs: tuple[options.InputSpec, ...], board: str, share: float, data: options.Reference | None, out: Path
) -> int:
    """Search, prune, quantise, simulate, and write the bundle; the exit status says whether the hardware equalled its reference."""
    from billhook.compiler.fpga import FpgaOptions, board_named, compile_fpga
    from billhook.compiler.fpga_job import only_input
    from billhook.progress import shown

    from .jobs import build_model, example_tensors

    chosen = board_named(board)
    module = build_model(model)
    sample = only_input(example_tensors(inputs))
    loader = options.call(data, "--data") if data is not None else None
    with shown() as listener:
        result = compile_fpga(module, sample, FpgaOptions(chosen, share, data=loader), simulator_cache(), listener)
    result.save(out)
    typer.echo(f"{result}\n{out}")
    return 0 if result.met else UNMET


def parse_share(text: str) -> float:
    """A share such as 50% or 0.5. Raises OptionError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise OptionError(f"--cycles: {text!r} is no share; give one such as 50%") from error
    if not 0 < value <= 1:
        raise OptionError(f"--cycles: {text} is not above 0 and up to 100%; give such a share")
    return value


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Function that returns the trained nn.Module: package.module:build")],
    example: Annotated[
        list[str], typer.Option("--example", "-e", metavar="SHAPE", help="One sample, such as 1x3x32x32", show_default=False)
    ],
    board: Annotated[str, typer.Option(metavar="NAME", help="zcu102, zcu104, pynq-z2 or ulx3s.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Bundle to write.")],
    cycles: Annotated[
        str, typer.Option(metavar="SHARE", help="Budget: share of the dense network's cycles; 100% prunes nothing.")
    ] = "100%",
    data: Annotated[
        str | None, typer.Option(metavar="REF", help="Function that returns a loader, for calibration and scores.", show_default=False)
    ] = None,
) -> None:
    """Cut a model to a budget of cycles, and make an int8 accelerator with its program for an FPGA board; checked in simulation."""
    reference = options.parse_reference(data, "--data") if data is not None else None
    status = compile_for_board(
        options.parse_reference(model, "MODEL"),
        options.parse_inputs(example),
        board,
        parse_share(cycles),
        reference,
        options.result_folder(out),
    )
    raise typer.Exit(status)
