"""manifest.json: what a bundle is, what it is for, and the digest of every file in it."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from billhook.ir.errors import BundleError
from billhook.ir.latency import Latency, Provenance
from billhook.ir.planfile import Sha256, file_digest

MANIFEST = "manifest.json"
LIBRARY = "lib/model.so"
VECTOR = "test/vector.txt"
SCHEMA = 1

_CODE = {"opencl": "lib/kernels.cl"}  # by kind of target; other kinds have LIBRARY


class Part(BaseModel):
    """Base of the manifest and its parts: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LatencyPart(Part):
    """A latency in seconds with its interval and provenance."""

    seconds: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat
    provenance: Provenance

    @classmethod
    def of(cls, latency: Latency) -> "LatencyPart":
        return cls(seconds=latency.seconds, low=latency.low, high=latency.high, provenance=latency.provenance)

    def latency(self) -> Latency:
        return Latency(self.seconds, self.low, self.high, self.provenance)


class TargetPart(Part):
    """What the library was generated for. architecture: as `uname -m` says; features: vector instruction sets it may use."""

    kind: str
    mcpu: str
    architecture: str
    features: tuple[str, ...]
    threads: PositiveInt


class Manifest(Part):
    """The content of manifest.json. files: SHA-256 of every file, by its path relative to the bundle."""

    schema_version: Literal[1]
    target: TargetPart
    budget_s: PositiveFloat | None
    predicted: LatencyPart | None
    measured: LatencyPart | None
    versions: Mapping[str, str]
    files: Mapping[str, Sha256]


def digests(bundle: Path) -> dict[str, str]:
    """SHA-256 of every file below the folder, by relative path, sorted."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): file_digest(path) for path in files}


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    (bundle / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(bundle: Path) -> Manifest:
    """Read manifest.json.

    Raises:
        BundleError: there is none, it is damaged, of a newer schema, or does not list what a bundle needs.
    """
    path = bundle / MANIFEST
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; {bundle} is not a bundle, or not all of it") from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); the bundle was altered, copy or save it again") from error
    version: Any = data.get("schema_version") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(version, int) and version > SCHEMA:
        raise BundleError(f"{path}: schema version {version}, this Billhook reads up to {SCHEMA}; upgrade Billhook")
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BundleError(f"{path}: {where}: {first['msg']}; the bundle was altered, copy or save it again") from error
    for name in (_CODE.get(manifest.target.kind, LIBRARY), VECTOR):
        if name not in manifest.files:
            raise BundleError(f"{path}: does not list {name}; the bundle was altered, copy or save it again")
    return manifest


def check_files(bundle: Path, manifest: Manifest) -> None:
    """Compare every listed file with its digest. This finds accidents; it is no signature.

    Raises:
        BundleError: the first file that is missing, cannot be read or was changed, by name.
    """
    for name, expected in manifest.files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BundleError(f"{bundle / MANIFEST}: lists {name}, which lies outside of the bundle; the bundle was altered")
        try:
            actual = file_digest(bundle / name)
        except OSError as error:
            raise BundleError(f"{bundle / name}: {error.strerror}; the bundle is incomplete, copy or save it again") from error
        if actual != expected:
            raise BundleError(f"{bundle / name}: differs from its checksum in {MANIFEST}; the bundle was altered, copy or save it again")
