"""From what the user asks for to seconds, and the three numbers that answer."""

from dataclasses import dataclass

from billhook.ir.latency import Latency

TOLERANCE = 0.03  # of the budget: what repeated measurements of one network differ by


@dataclass(frozen=True, slots=True)
class BudgetedLatency:
    """What was asked for (seconds), what the cost model expected of the final network, and what it takes."""

    budget: float
    predicted: Latency
    measured: Latency

    @property
    def met(self) -> bool:
        """Whether the measured latency is within the budget, up to `TOLERANCE`."""
        return self.measured.seconds <= self.budget * (1 + TOLERANCE)
