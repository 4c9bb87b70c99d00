"""A sample: one kernel measured under stated conditions, or the reason why it could not be."""

import json
from dataclasses import dataclass

from billhook.ir.latency import Latency
from billhook.ir.workload import Workload


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a latency depends on besides the workload. Samples of different conditions are never mixed.

    fingerprint: target and processor (`machine.fingerprint`); level: how hard the kernel was tuned, e.g. "templates:6";
    versions: (package, version) of the software that makes the kernels.
    """

    fingerprint: str
    level: str
    versions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", tuple(sorted(self.versions)))

    def __str__(self) -> str:
        return f"{self.fingerprint}, level {self.level}, " + " ".join(f"{name} {version}" for name, version in self.versions)


@dataclass(frozen=True, slots=True)
class Sample:
    """A workload, the conditions, and either a latency with the candidate that reached it, or the reason of the failure.

    candidate: JSON text of the kernel variant, opaque here, from which codegen makes the same kernel again;
    taken_at: UTC time in ISO form.
    """

    workload: Workload
    conditions: Conditions
    latency: Latency | None
    candidate: str
    taken_at: str
    failure: str = ""

    def __post_init__(self) -> None:
        if (self.latency is None) != bool(self.failure):
            raise ValueError("a sample has either a latency or a reason of failure")

    def __str__(self) -> str:
        return f"{self.workload}: {self.latency or 'failed: ' + self.failure}"


def versions_to_json(versions: tuple[tuple[str, str], ...]) -> str:
    """Canonical JSON text of a tuple of (package, version)."""
    return json.dumps([list(pair) for pair in sorted(versions)], separators=(",", ":"))


def versions_from_json(text: str) -> tuple[tuple[str, str], ...]:
    """Inverse of `versions_to_json`."""
    return tuple((str(name), str(version)) for name, version in json.loads(text))
