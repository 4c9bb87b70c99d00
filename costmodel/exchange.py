"""Samples as parquet files: to hand measurements on, to analyse them elsewhere, and to take those of others over.

One row is one sample with its conditions. What comes from outside is checked row by row before anything is stored.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from billhook.ir.errors import OutputError, StoreError, ToolchainError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.workload import workload_from_json

from .sample import Conditions, Sample, versions_from_json, versions_to_json

FORMAT = "1"
_MARK = b"billhook.samples"  # key of the file's metadata; its value is the format
_TEXTS = ("workload", "fingerprint", "level", "versions", "provenance", "candidate", "failure", "taken_at")
_NUMBERS = ("seconds", "low", "high")
_BATCH = 4096  # rows of a file that are held at once


def write_parquet(samples: Iterable[Sample], path: Path) -> int:
    """Write samples to a file that appears whole or not at all; returns how many.

    Raises:
        ToolchainError: pyarrow is not installed.
        OutputError: the file cannot be written.
    """
    arrow, parquet = _arrow()
    rows = [_row(sample) for sample in samples]
    schema = arrow.schema(list(_columns(arrow).items()), metadata={_MARK: FORMAT})
    beside = ""
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), beside, compression="zstd")
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); choose another file") from error
    finally:
        if beside:
            Path(beside).unlink(missing_ok=True)
    return len(rows)


def read_parquet(path: Path) -> list[Sample]:
    """The samples of a file, every row checked.

    Raises:
        ToolchainError: pyarrow is not installed.
        StoreError: the file is not one of ours, is damaged or of another format, or a row (named) makes no sense.
    """
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            _check(path, file.schema_arrow, arrow)
            return list(_samples(path, (row for batch in file.iter_batches(_BATCH) for row in batch.to_pylist())))
    except (OSError, arrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"{path} cannot be read ({reason}); is it a parquet file written by `billhook db export`?") from error


def _arrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet; they have no types, and are needed for nothing else."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ToolchainError("parquet files need pyarrow, which is not installed; run pip install 'billhook[db]'") from error


def _columns(arrow: Any) -> dict[str, Any]:
    """Arrow types by column."""
    return {**dict.fromkeys(_TEXTS, arrow.string()), **dict.fromkeys(_NUMBERS, arrow.float64())}


def _check(path: Path, schema: Any, arrow: Any) -> None:
    """Whether the file has our mark and our columns."""
    mark = (schema.metadata or {}).get(_MARK, b"").decode()
    if not mark:
        raise StoreError(f"{path} holds no samples of Billhook; name a file written by `billhook db export`")
    if mark != FORMAT:
        raise StoreError(f"{path} has format {mark}, this Billhook reads format {FORMAT}; update Billhook or export it anew")
    wanted = _columns(arrow)
    wrong = next((name for name, kind in wanted.items() if name not in schema.names or schema.field(name).type != kind), None)
    if wrong is not None:
        raise StoreError(f"{path} has no column '{wrong}' of type {wanted[wrong]}; export it anew")


def _row(sample: Sample) -> dict[str, Any]:
    c, latency = sample.conditions, sample.latency
    return {
        "workload": sample.workload.key,
        "fingerprint": c.fingerprint,
        "level": c.level,
        "versions": versions_to_json(c.versions),
        "provenance": latency.provenance if latency else None,
        "candidate": sample.candidate,
        "failure": sample.failure,
        "taken_at": sample.taken_at,
        "seconds": latency.seconds if latency else None,
        "low": latency.low if latency else None,
        "high": latency.high if latency else None,
    }


def _samples(path: Path, rows: Iterator[dict[str, Any]]) -> Iterator[Sample]:
    for number, row in enumerate(rows):
        try:
            yield _sample(row)
        except (ValueError, TypeError, LookupError, AssertionError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{path}: row {number} is no sample ({reason}); nothing was imported, export it anew") from error


def _sample(row: dict[str, Any]) -> Sample:
    """A row as a sample. ValueError and its like where it makes no sense."""
    known = row["provenance"] in get_args(Provenance)
    if row["seconds"] is not None and not (known and row["seconds"] > 0 and 0 <= row["low"] <= row["high"] < float("inf")):
        raise ValueError(f"latency {row['seconds']} in [{row['low']}, {row['high']}] from {row['provenance']}")
    latency = None if row["seconds"] is None else Latency(row["seconds"], row["low"], row["high"], row["provenance"])
    conditions = Conditions(_text(row, "fingerprint"), _text(row, "level"), versions_from_json(row["versions"]))
    taken_at = datetime.fromisoformat(row["taken_at"]).astimezone(UTC).isoformat(timespec="seconds")
    return Sample(workload_from_json(row["workload"]), conditions, latency, _text(row, "candidate"), taken_at, _text(row, "failure"))


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise TypeError(f"{name} is empty")
    return row[name]
