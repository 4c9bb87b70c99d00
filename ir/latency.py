"""A latency is never a bare float: it carries its interval and where it comes from."""

from dataclasses import dataclass
from typing import Literal

Provenance = Literal["device", "host", "simulated", "static", "predicted"]


@dataclass(frozen=True, slots=True)
class Latency:
    """A latency in seconds with the interval that it lies in.

    Only the provenances "device" and "host" are measurements; "simulated" and "static" figures never count as time on
    hardware, and "predicted" comes from a cost model that was fitted to measurements.
    """

    seconds: float
    low: float
    high: float
    provenance: Provenance = "host"

    def __post_init__(self) -> None:
        if not self.low <= self.seconds <= self.high:
            raise ValueError(f"latency interval [{self.low}, {self.high}] does not contain {self.seconds}")

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:.3f} ms [{self.low * 1e3:.3f}, {self.high * 1e3:.3f}] ({self.provenance})"

    def scaled(self, factor: float) -> "Latency":
        """The same latency times a positive factor (a calibration)."""
        return Latency(self.seconds * factor, self.low * factor, self.high * factor, self.provenance)
