"""`billhook device`: name remote devices, look whether they answer, and forget them."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from billhook import devices
from billhook.codegen.tracker import registered
from billhook.ir.errors import DeviceError, OptionError

from .places import DatabaseOption, database_path

app = typer.Typer(help="Remote devices that measure kernels, reached through a TVM RPC tracker.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What the device is called here.")]


@app.command()
def add(
    name: NameArgument,
    tracker: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the tracker listens.")],
    key: Annotated[str, typer.Option(metavar="KEY", help="What the device's servers are registered as; equal boards share a key.")],
    target: Annotated[str, typer.Option(metavar="TARGET", help="As for compile; llvm is the device's own processor.")] = "llvm",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long one kernel may occupy a server.")] = 60.0,
    database: DatabaseOption = None,
) -> None:
    """Name a device, or change what a name means. The list lies beside the measurement database."""
    path = devices.devices_file(database_path(database))
    device = devices.make_device(name, tracker, key, target, timeout)
    devices.write_devices(path, devices.read_devices(path) | {name: device})
    typer.echo(f"{device} in {path}; try it: billhook device check {name}")


@app.command("list")
def list_(database: DatabaseOption = None) -> None:
    """The devices that are named, and how many servers each has at the moment."""
    known = devices.read_devices(devices.devices_file(database_path(database)))
    if not known:
        typer.echo("no devices; add one: billhook device add NAME --tracker HOST:PORT --key KEY")
        return
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "tracker", "key", "target", "timeout", "servers"):
        table.add_column(title, overflow="fold")
    for d in known.values():
        table.add_row(d.name, str(d.tracker), d.key, d.target, f"{d.timeout:g} s", _servers(d))
    Console().print(table)


@app.command()
def check(name: NameArgument, database: DatabaseOption = None) -> None:
    """Reach a device, ask what it is, and measure a small kernel there: the result must be right."""
    device = devices.find_device(database_path(database), name)
    servers = registered(device.tracker, device.key)
    typer.echo(f"tracker {device.tracker} answers; servers registered as '{device.key}': {servers}")
    from billhook.compiler.bench import open_device, try_device

    with open_device(device) as bench:
        typer.echo(f"processor: {bench.processor}")
        typer.echo(f"target: {bench.target}")
        typer.echo(f"a convolution of 16 channels on 14x14: {try_device(bench)}")


@app.command()
def remove(name: NameArgument, database: DatabaseOption = None) -> None:
    """Forget a device. Its samples stay in the database."""
    path = devices.devices_file(database_path(database))
    known = devices.read_devices(path)
    if name not in known:
        raise OptionError(f"device {name}: not known (known: {', '.join(known) or 'none'})")
    devices.write_devices(path, {n: d for n, d in known.items() if n != name})
    typer.echo(f"{name} is forgotten; its samples stay")


def _servers(device: devices.Device) -> str:
    try:
        return str(registered(device.tracker, device.key, timeout=2.0))
    except DeviceError:
        return "[red]no tracker[/]"
