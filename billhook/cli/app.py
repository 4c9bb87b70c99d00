"""The commands. Each parses its options into values and hands them to a job; whatever is heavy is imported there, so `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from billhook import options
from billhook.goals import WHOLE, Goals, parse_objective
from billhook.ir.errors import OptionError
from billhook.passes.constraints import parse_constraint

from . import db, device, fpga, jobs
from . import front as front_job
from .places import DatabaseOption
from .places import database_path as _database

app = typer.Typer(
    help="Cut a trained PyTorch network to a measured latency budget: smaller trainable model, tuned kernels.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(db.app, name="db")
app.add_typer(device.app, name="device")
app.command("fpga")(fpga.command)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Function that returns the trained nn.Module: package.module:build")]
ConstraintOption = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", help="uniform(AXES), divisible(AXES, N), at_least(AXES, N) or fixed(AXES); may be repeated."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="Remote device to measure on: see billhook device.", show_default=False)
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A method of the literature in place of our allocation: halp, smcp, mdp, nvit, ...", show_default=False
    ),
]
DataOption = Annotated[
    str | None, typer.Option(metavar="REF", help="Function that returns the training loader: package.module:loader", show_default=False)
]
CriterionOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How channels are scored; by default taylor with data, l2 without.", show_default=False),
]
TargetOption = Annotated[str, typer.Option(metavar="TARGET", help="What the kernels are made for; llvm is this machine's processor.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Most memory of values between kernels: 2MB, or a share (50%) of the dense network's.",
        show_default=False,
    ),
]
LatencyOption = Annotated[
    str | None,
    typer.Option(metavar="BUDGET", help="Share of the best dense latency (50%) or a time (12ms).", show_default=False),
]
ObjectiveOption = Annotated[
    str, typer.Option(metavar="NAME", help="The most importance within the limits, or the least latency or memory that keeps --retain.")
]
RetainOption = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Importance that least latency or memory has to keep: 90%.", show_default=False)
]
WeightsOption = Annotated[
    str | None, typer.Option(metavar="BUDGET", help="Most bytes of weights: 2MB, or a share (50%) of the dense ones.", show_default=False)
]
LowRankOption = Annotated[bool, typer.Option("--low-rank", help="Layers may become two thin ones, where it pays; needs --data.")]
SparsityOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Sparse layers too: blocks (of columns) or patterns (of taps).", show_default=False)
]
ExampleOption = Annotated[
    list[str],
    typer.Option("--example", "-e", metavar="SHAPE", help="One per input, in order: 1x3x224x224, int64:1x128", show_default=False),
]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from billhook import __version__

        typer.echo(f"billhook {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the report, the record and the bundle go.")] = Path(
        "out/demo"
    ),
    database: DatabaseOption = None,
) -> None:
    """The main job on embedded data: train, cut to half the measured latency, tune, verify, report."""
    raise typer.Exit(jobs.run_demo(options.result_folder(out), _database(database)))


@app.command()
def trace(
    model: ModelArgument,
    example: ExampleOption,
    text: Annotated[bool, typer.Option("--text", help="Print the whole program with the type of every dimension.")] = False,
    axis: Annotated[
        str | None, typer.Option(metavar="NAME", help="Explain one axis: what moves together, through which nodes.", show_default=False)
    ] = None,
    graph: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the kernels and the axes between them: .svg or .html.", show_default=False)
    ] = None,
) -> None:
    """Show the axes of a model: what can be pruned, what is frozen, and which operator freezes it."""
    drawing = options.drawing_file(graph) if graph is not None else None
    jobs.run_trace(options.parse_reference(model, "MODEL"), options.parse_inputs(example), text=text, axis=axis, drawing=drawing)


@app.command()
def front(
    model: ModelArgument,
    example: ExampleOption,
    data: DataOption = None,
    criterion: CriterionOption = None,
    preset: PresetOption = None,
    retain: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Also say at which least latency this share (90%) can be retained.", show_default=False),
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="Measure nothing: costs by a law over operations and bytes.")] = False,
    points: Annotated[int, typer.Option(metavar="N", min=2, help="Rows to print.")] = 20,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads of one inference.")] = 1,
    constraint: ConstraintOption = None,
    graph: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the front: .svg or .html.", show_default=False)] = None,
    database: DatabaseOption = None,
) -> None:
    """Show what could be kept at which latency, before any training: one allocation solve over scores and kernel costs."""
    front_job.run_front(
        front_job.FrontJob(
            model=options.parse_reference(model, "MODEL"),
            inputs=options.parse_inputs(example),
            data=_reference(data, "--data"),
            criterion=criterion,
            preset=_preset(preset),
            retain=options.parse_share(retain, "--retain") if retain is not None else None,
            points=points,
            threads=threads,
            constraints=tuple(parse_constraint(text) for text in constraint or ()),
            database=None if static else _database(database),
            drawing=options.drawing_file(graph) if graph is not None else None,
        )
    )


@app.command("compile")
def compile_(
    model: ModelArgument,
    example: ExampleOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; made anew, or replaced if it is a result.")],
    latency: LatencyOption = None,
    data: DataOption = None,
    target: TargetOption = "llvm",
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads of one inference.")] = 1,
    criterion: CriterionOption = None,
    preset: PresetOption = None,
    objective: ObjectiveOption = "importance",
    retain: RetainOption = None,
    memory: MemoryOption = None,
    weights: WeightsOption = None,
    evaluate: Annotated[str | None, typer.Option(metavar="REF", help="Function model -> accuracy in [0, 1].")] = None,
    finetune: Annotated[str | None, typer.Option(metavar="REF", help="Function model -> None that trains it in place.")] = None,
    constraint: ConstraintOption = None,
    device_: DeviceOption = None,
    precision: Annotated[str, typer.Option(metavar="NAME", help="Of values and products: fp32, bf16 or int8.")] = "fp32",
    sparsity: SparsityOption = None,
    low_rank: LowRankOption = False,
    database: DatabaseOption = None,
) -> None:
    """Cut a model to a latency budget, tune its kernels, measure, and save model, plan, bundle and report."""
    job = jobs.CompileJob(
        model=options.parse_reference(model, "MODEL"),
        inputs=options.parse_inputs(example),
        **{name: _reference(text, f"--{name}") for name, text in (("data", data), ("evaluate", evaluate), ("finetune", finetune))},
        goals=_goals(latency, objective, retain, memory, weights, low_rank=low_rank),
        target=target,
        threads=threads,
        criterion=criterion,
        preset=_preset(preset),
        constraints=tuple(parse_constraint(text) for text in constraint or ()),
        device=device_,
        precision=precision,
        sparsity=sparsity,
        out=options.result_folder(out),
        database=_database(database),
    )
    raise typer.Exit(jobs.run_compile(job))


@app.command()
def load(
    saved: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `compile` wrote.")],
    model: ModelArgument,
) -> None:
    """Re-apply a saved plan and its weights to a fresh model, and say what came out."""
    jobs.run_load(options.existing(saved, "DIR"), options.parse_reference(model, "MODEL"))


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")]) -> None:
    """Check a bundle: checksums, the test vector against its expected output, and the latency here."""
    raise typer.Exit(jobs.run_verify(options.existing(bundle, "BUNDLE")))


@app.command()
def report(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="record.json of a run.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Render a record as one self-contained HTML page."""
    source = options.existing(record, "RECORD")
    from billhook.report import read_record, render

    render(read_record(source), out)
    typer.echo(out)


@app.command()
def doctor(database: DatabaseOption = None) -> None:
    """Check that everything needed is here, and say how to get what is not."""
    from billhook.doctor import examine, show

    findings = examine(_database(database))
    show(findings)
    raise typer.Exit(0 if all(f.ok or not f.required for f in findings) else 1)


def _reference(text: str | None, option: str) -> options.Reference | None:
    return options.parse_reference(text, option) if text is not None else None


def _goals(latency: str | None, objective: str, retain: str | None, memory: str | None, weights: str | None, *, low_rank: bool) -> Goals:
    """What `compile` seeks, each option by the name that it has here; what excludes what is said by the job."""
    sought = parse_objective(objective, retain)
    if latency is None and sought.name != "latency":
        raise OptionError("--latency: give the budget, such as 50% or 12ms; only --objective latency goes without")
    return Goals(
        options.parse_budget(latency) if latency is not None else WHOLE,
        sought,
        options.parse_memory(memory) if memory is not None else None,
        options.parse_memory(weights, "--weights") if weights is not None else None,
        low_rank,
    )


def _preset(name: str | None) -> str | None:
    """The name, if there is such a preset: said before the model is built."""
    if name is None:
        return None
    from billhook.passes.allocation_presets import find_preset

    find_preset(name)
    return name
