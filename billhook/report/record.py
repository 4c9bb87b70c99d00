"""The record of a run: everything that the report shows and that a script may check, as one versioned JSON object."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError, model_validator

from billhook.ir.errors import OptionError

Interval = tuple[NonNegativeFloat, NonNegativeFloat]
SCHEMA = 1


class Part(BaseModel):
    """Base of the record and its parts: frozen, and a misspelt key is an error rather than a silent loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FrontPoint(Part):
    """A point of the Pareto front: the best share of the dense importance that fits in a latency (seconds)."""

    latency_s: NonNegativeFloat
    retained: float
    chosen: bool = False


class AxisRow(Part):
    """An axis before and after; `frozen_because` says why it may not be cut, `prunable` whether it may."""

    name: str
    size: int = Field(ge=0)
    kept: int = Field(ge=0)
    prunable: bool = True
    frozen_because: str = ""

    @model_validator(mode="after")
    def _keeps_at_most_its_size(self) -> Self:
        if self.kept > self.size:
            raise ValueError(f"axis {self.name} keeps {self.kept} of {self.size}")
        return self


class KernelRow(Part):
    """A kernel of the built network: latency as the cost model had it, and as it was measured (seconds).

    gflops: nominal operations per second in billions, so a kernel that saves operations (Winograd) may pass the peak; gbytes: inputs
    and output once per second in billions, so one whose data stays in caches may pass the memory's.
    """

    name: str
    predicted_s: NonNegativeFloat
    measured_s: NonNegativeFloat
    gflops: NonNegativeFloat | None = None
    gbytes: NonNegativeFloat | None = None
    workload: str = ""


class Stage(Part):
    """A stage of the run and the seconds that it took."""

    name: str
    seconds: NonNegativeFloat


class Check(Part):
    """Something that was verified, with what was found."""

    name: str
    passed: bool
    detail: str = ""


class Record(Part):
    """One run. All times in seconds, sizes in bytes, accuracies and importances as shares in [0, 1].

    dense_s, pruned_s: latency by runtime, measured interleaved; `ours` names our own build among them.
    accuracy, nll: means over the seeds by contender ("dense", "pruned", "uniform"); `*_by_seed` has the single values.
    contender_s: the measured latency at which each contender has that accuracy.
    peak_gflops, peak_gbytes: what the machine was measured to do at most, on as many threads: multiply-adds, and copying in memory.
    hit_rate: share of the kernels needed that the measurement database already had, from earlier runs or other models.
    """

    schema_version: Literal[1] = SCHEMA
    title: str = "Billhook"
    model: str = ""
    target: str = ""
    created: str = ""
    ours: str = "billhook"

    budget_s: PositiveFloat
    budget_text: str = ""
    measured_s: PositiveFloat
    predicted_s: PositiveFloat
    tolerance: NonNegativeFloat = 0.03
    measured_interval_s: Interval | None = None
    predicted_interval_s: Interval | None = None

    dense_s: Mapping[str, PositiveFloat]
    pruned_s: Mapping[str, PositiveFloat]
    dense_interval_s: Mapping[str, Interval] = {}
    pruned_interval_s: Mapping[str, Interval] = {}

    accuracy: Mapping[str, float] = {}
    nll: Mapping[str, float] = {}
    accuracy_by_seed: Mapping[str, tuple[float, ...]] = {}
    nll_by_seed: Mapping[str, tuple[float, ...]] = {}
    contender_s: Mapping[str, PositiveFloat] = {}
    seeds: tuple[int, ...] = ()

    allocation_gap: NonNegativeFloat
    certificate: str = ""
    front: tuple[FrontPoint, ...] = ()
    axes: tuple[AxisRow, ...] = ()
    kernels: tuple[KernelRow, ...] = ()
    peak_gflops: PositiveFloat | None = None
    peak_gbytes: PositiveFloat | None = None
    parameters: Mapping[str, int] = {}

    checks: tuple[Check, ...] = ()
    stages: tuple[Stage, ...] = ()
    hit_rate: float | None = Field(default=None, ge=0, le=1)
    notes: tuple[str, ...] = ()
    seconds_total: NonNegativeFloat
    peak_rss_bytes: int = Field(ge=0)
    versions: Mapping[str, str]
    environment: Mapping[str, str] = {}

    @property
    def met(self) -> bool:
        """Whether the measured latency is within the budget, up to the stated tolerance of the measurement."""
        return self.measured_s <= self.budget_s * (1 + self.tolerance)

    @property
    def best_dense(self) -> str:
        """The runtime with the lowest dense latency: what the budget is a share of."""
        return min(self.dense_s, key=lambda runtime: self.dense_s[runtime])

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Self:
        if not self.dense_s:
            raise ValueError("dense_s is empty: a record without a dense baseline says nothing")
        return self


def parse_record(data: Mapping[str, Any], source: str = "record") -> Record:
    """Validate a record.

    Raises:
        OptionError: another schema version, or the first key that is missing or wrong, by name.
    """
    version = data.get("schema_version", SCHEMA)
    if version != SCHEMA:
        raise OptionError(f"{source}: schema version {version}, this Billhook reads {SCHEMA}; use the Billhook that wrote it")
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise OptionError(f"{source}: {where}: {first['msg']}{more}; is it a record.json of Billhook?") from error


def read_record(path: Path) -> Record:
    """Read `record.json`.

    Raises:
        OptionError: not JSON, or not a record.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: not JSON ({error}); is it a record.json of Billhook?") from error
    if not isinstance(data, dict):
        raise OptionError(f"{path}: holds no JSON object; is it a record.json of Billhook?")
    return parse_record(cast("dict[str, Any]", data), str(path))


def write_record(record: Record, path: Path) -> None:
    """Write `record.json`, whole or not at all."""
    write_whole(path, record.model_dump_json(indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file beside and rename it, so that a full disk or an interrupt leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
