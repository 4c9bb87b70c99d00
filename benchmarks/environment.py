"""What every record says about where it was made, and what its file is called."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from billhook.costmodel.machine import this_machine


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """Date, machine, and versions of the packages."""
    machine = this_machine(packages)
    return {"date": _today(), **asdict(machine), "versions": dict(machine.versions)}


def record_path(home: Path) -> Path:
    """home/<machine>-<date>.json, where the machine is the processor's model as part of a file name."""
    name = re.sub(r"\(.*?\)|[0-9/]+$|processor|cpu", "", this_machine().cpu.lower())
    return home / f"{re.sub(r'[^a-z0-9]+', '-', name).strip('-') or 'unknown'}-{_today()}.json"


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
