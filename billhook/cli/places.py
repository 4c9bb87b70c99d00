"""Where measurements are: the option that every command with a database has."""

import os
from pathlib import Path
from typing import Annotated

import typer

from billhook import options
from billhook.ir.errors import OptionError

DatabaseOption = Annotated[
    Path | None, typer.Option("--db", metavar="FILE", help="Measurement database; by default $BILLHOOK_DB, else one in the cache folder")
]


def database_path(chosen: Path | None) -> Path:
    """The database that the user means; it need not exist yet."""
    return chosen or options.default_database(os.environ)


def existing_database(chosen: Path | None) -> Path:
    """The database that the user means, which must exist: looking at one should not make an empty one. Raises OptionError."""
    path = database_path(chosen)
    if not path.exists():
        raise OptionError(f"--db {path}: there is no database; name one, or make one by `billhook compile` or `billhook demo`")
    return path


def simulator_cache() -> Path:
    """Where built simulators of FPGA accelerators are kept: beside the database."""
    return options.default_database(os.environ).parent / "simulators"
