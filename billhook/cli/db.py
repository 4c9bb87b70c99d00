"""`billhook db`: look into the measurement database, hand samples on, take others over, and drop what is old."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from billhook import options
from billhook.costmodel.exchange import read_parquet, write_parquet
from billhook.costmodel.machine import SOFTWARE, installed_versions, this_machine
from billhook.costmodel.measured import too_noisy
from billhook.costmodel.sample import Sample
from billhook.costmodel.selection import Group, Merged, Run, Selection, Versions, stale
from billhook.costmodel.store import Store, open_store
from billhook.ir.errors import OptionError

from .places import DatabaseOption, database_path, existing_database

app = typer.Typer(help="Look into the measurement database; export, import, merge and prune its samples.", no_args_is_help=True)

_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0, "y": 365.0}
_WIDEST = 100  # characters of a workload in the list

TargetOption = Annotated[str, typer.Option(metavar="TEXT", help="Only samples whose target or processor contains this.")]
VersionOption = Annotated[
    list[str] | None, typer.Option("--version", metavar="NAME=VERSION", help="Only samples made with this, e.g. apache-tvm=0.26.0.")
]
AgeOption = Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="Only samples older than, e.g., 12h, 90d, 2w or 1y.")]
FailedOption = Annotated[bool, typer.Option("--failed", help="Only kernels that could not be measured.")]


@app.command()
def info(database: DatabaseOption = None) -> None:
    """What the database holds, which of it is used here, and how much the latest runs found in it."""
    path = existing_database(database)
    with open_store(path) as store:
        groups, runs = store.groups(), store.runs()
    console = Console()
    console.print(f"{path}: {sum(g.samples for g in groups)} samples, {path.stat().st_size / 2**20:.1f} MiB", soft_wrap=True)
    console.print(_groups_table(groups))
    if runs:
        console.print(_runs_table(runs))


@app.command("list")
def list_(
    database: DatabaseOption = None,
    target: TargetOption = "",
    version: VersionOption = None,
    older_than: AgeOption = None,
    failed: FailedOption = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Rows to show at most.")] = 50,
) -> None:
    """Samples, one a line: latency with interval and provenance, the time of measuring, and the kernel."""
    with open_store(existing_database(database)) as store:
        found = list(store.select(selection(target, version, older_than, failed=failed)))
    for sample in found[:limit]:
        typer.echo(f"{_outcome(sample):46} {sample.taken_at[:16]} {_short(sample)}")
    if len(found) > limit:
        typer.echo(f"... {len(found) - limit} more; raise --limit or choose by --target, --version, --older-than, --failed")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file to write.")],
    database: DatabaseOption = None,
    target: TargetOption = "",
    version: VersionOption = None,
    older_than: AgeOption = None,
    failed: FailedOption = False,
) -> None:
    """Write samples to a parquet file (needs pyarrow: pip install 'billhook[db]')."""
    with open_store(existing_database(database)) as store:
        count = write_parquet(store.select(selection(target, version, older_than, failed=failed)), out)
    typer.echo(f"{count} samples in {out}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file that `billhook db export` wrote.")],
    database: DatabaseOption = None,
) -> None:
    """Take the samples of a parquet file over; of two of one kernel under equal conditions the newer stays."""
    samples = read_parquet(options.existing(source, "FILE"))
    with open_store(database_path(database)) as store:
        typer.echo(store.merge(samples))


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Databases whose samples to take over; they keep theirs.")],
    database: DatabaseOption = None,
) -> None:
    """Take the samples of other databases over; of two of one kernel under equal conditions the newer stays."""
    goal = database_path(database)
    paths = [options.existing(path, "FILE") for path in sources]
    if any(path.absolute() == goal.absolute() for path in paths):
        raise OptionError(f"FILE {goal}: is the database itself; name other databases")
    with open_store(goal) as store:
        for path in paths:
            typer.echo(f"{path}: {_merge(store, path)}")


@app.command()
def prune(
    database: DatabaseOption = None,
    target: TargetOption = "",
    version: VersionOption = None,
    older_than: AgeOption = None,
    failed: FailedOption = False,
    stale_: Annotated[bool, typer.Option("--stale", help="Only samples of other software versions than those installed.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say how many samples would go.")] = False,
) -> None:
    """Drop samples: all that meet every given option, of which there must be one."""
    chosen = selection(target, version, older_than, failed=failed, not_versions=_here() if stale_ else ())
    if chosen.everything:
        raise OptionError("prune: say which samples, by --older-than, --version, --target, --failed or --stale")
    with open_store(existing_database(database)) as store:
        count, left = store.prune(chosen, dry=dry), len(store)
    typer.echo(f"{count} of {left} samples would be dropped" if dry else f"{count} samples dropped, {left} left")


def selection(target: str, versions: list[str] | None, age: str | None, *, failed: bool, not_versions: Versions = ()) -> Selection:
    """The selection that options mean. Raises OptionError."""
    return Selection(target, tuple(map(_version, versions or ())), not_versions, _before(age) if age else "", failed)


def _merge(store: Store, path: Path) -> Merged:
    with open_store(path) as source:
        return store.merge(source.select(Selection()))


def _version(text: str) -> tuple[str, str]:
    name, equals, version = text.partition("=")
    if not (name and equals and version.lstrip("=")):
        raise OptionError(f"--version {text}: write NAME=VERSION, like apache-tvm=0.26.0")
    return name, version.lstrip("=")


def _before(age: str) -> str:
    """The time, UTC in ISO form, before which a sample is older than this age."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdwy])", age.strip().lower())
    if match is None:
        raise OptionError(f"--older-than {age}: write a number with h, d, w or y, like 90d")
    try:
        begin = datetime.now(UTC) - timedelta(days=float(match[1]) * _DAYS[match[2]])
    except OverflowError as error:
        raise OptionError(f"--older-than {age}: is longer than the calendar reaches back; name a smaller age") from error
    return begin.isoformat(timespec="seconds")


def _here() -> Versions:
    return installed_versions(SOFTWARE)


def _groups_table(groups: tuple[Group, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("samples", "failed", "on device", "newest", "target and processor", "level", ""):
        table.add_column(title, overflow="fold")
    here, cpu = _here(), this_machine().cpu
    for g in groups:
        counts = (str(g.samples), str(g.failures), str(g.device))
        table.add_row(*counts, g.newest[:16], g.conditions.fingerprint, g.conditions.level, _use(g, here, cpu))
    return table


def _use(group: Group, here: Versions, cpu: str) -> str:
    """Whether samples of these conditions are used here, and if not, why."""
    if old := stale(group.conditions.versions, here):
        return f"[yellow]kept, not used[/]: {old}"
    if group.conditions.fingerprint.endswith(f" on {cpu}"):
        return "[green]used[/]"
    return "used with its device" if group.device else "kept, not used: another machine's"


def _runs_table(runs: tuple[Run, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), title="latest runs", title_justify="left")
    for title in ("when", "model", "kernels needed", "known before", ""):
        table.add_column(title, overflow="fold")
    for r in runs:
        table.add_row(r.taken_at[:16], r.model, str(r.wanted), str(r.found), f"{r.hit_rate:.0%}")
    return table


def _outcome(sample: Sample) -> str:
    if sample.latency is None:
        return f"failed: {' '.join(sample.failure.split())[:37]}"
    low, value, high = (s * 1e6 for s in (sample.latency.low, sample.latency.seconds, sample.latency.high))
    noise = " TOO NOISY" if too_noisy(sample.latency) else ""
    return f"{value:10.2f} us [{low:.2f}, {high:.2f}] ({sample.latency.provenance}){noise}"


def _short(sample: Sample) -> str:
    text = str(sample.workload)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."
