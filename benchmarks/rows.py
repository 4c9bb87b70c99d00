"""Rows on disk while a suite runs, so that an interrupted run goes on where it stopped, and the record made from them."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .environment import environment, record_path

Row: TypeAlias = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "apache-tvm", "numpy", "scipy", "billhook")


class Rows:
    """A file of rows, one JSON object a line. Rows that agree in all of `keys` are one row: the last of them counts."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path, self._keys = path, tuple(keys)

    def read(self) -> list[Row]:
        """All rows, in the order in which they were first written. A line that an interrupt cut short is left out."""
        found: dict[tuple[Any, ...], Row] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                row: Row = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[self._key(row)] = row
        return list(found.values())

    def find(self, **wanted: Any) -> Row | None:
        """The row with these values, or None."""
        return next((row for row in self.read() if all(row.get(k) == v for k, v in wanted.items())), None)

    def add(self, row: Row) -> None:
        """Append a row at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(k) for k in self._keys)


def write_record(suite: str, summary: Mapping[str, Any], rows: Iterable[Row], results: Path = RESULTS, **more: Any) -> Path:
    """Write results/<suite>/<machine>-<date>.json: environment, summary, whatever else is to be stated, and the rows."""
    path = record_path(results / suite)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment(PACKAGES), "summary": dict(summary), **more, "rows": list(rows)}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def in_child(package: str, *arguments: str) -> bool:
    """Run a part of a suite in a fresh process, whose memory goes with it; whether it succeeded."""
    return subprocess.call([sys.executable, "-m", package, *arguments, "--in-process"]) == 0
