"""Measured costs: look a workload up in the store, measure it only if it is not there.

How to measure comes from outside (codegen's kernel timer, injected by the facade), so this folder needs no code generator.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from billhook.ir.errors import MeasureError
from billhook.ir.latency import Latency
from billhook.ir.progress import Progress, no_progress
from billhook.ir.workload import Workload

from .sample import Conditions, Sample
from .store import Store

GATE = 0.25  # a kernel's interval that is wider than this share of its latency is too noisy


class Measure(Protocol):
    """Builds and times the kernel of a workload on the target.

    Returns its latency and the JSON text of the candidate that reached it; raises MeasureError where it cannot. It is
    called from as many threads at once as there are `workers`.
    """

    def __call__(self, workload: Workload, /) -> tuple[Latency, str]: ...


@dataclass(frozen=True, slots=True)
class Reuse:
    """Of the distinct kernels that were wanted, how many the database had before: measured for this model earlier, or for another."""

    wanted: int = 0
    found: int = 0

    @property
    def hit_rate(self) -> float:
        """Share in [0, 1]; 0 where nothing was wanted."""
        return self.found / self.wanted if self.wanted else 0.0

    def __str__(self) -> str:
        return f"{self.found} of {self.wanted} kernels were known ({self.hit_rate:.0%})"


class MeasuredCosts:
    """Samples of workloads under fixed conditions, measured on demand and kept in the store.

    workers: how many kernels `cost_many` measures at once. gate, attempts: a measurement whose interval is wider than this share
    of it is repeated at once, up to so many attempts in all; the narrowest is kept, and its interval goes with it into every
    prediction. Those that stay too noisy are in `noisy`. usable: whether a sample from the store still says what a new one would;
    those that are not are measured again.
    """

    def __init__(
        self,
        store: Store,
        measure: Measure,
        conditions: Conditions,
        workers: int = 1,
        *,
        gate: float = GATE,
        attempts: int = 2,
        usable: Callable[[Sample], bool] = lambda _: True,
    ) -> None:
        self.store = store
        self.conditions = conditions
        self._measure = measure
        self._workers = workers
        self._gate = gate
        self._attempts = attempts
        self._usable = usable
        self._samples: dict[Workload, Sample] = {}
        self._wanted: set[Workload] = set()
        self._taken: set[Workload] = set()

    @property
    def reuse(self) -> Reuse:
        """How much of what was asked for since this object was made did not have to be measured."""
        return Reuse(len(self._wanted), len(self._wanted - self._taken))

    @property
    def noisy(self) -> tuple[Sample, ...]:
        """Samples that were asked for and are too noisy: shown to the user, since predictions with them are as uncertain as they are."""
        asked = (self._samples[w] for w in self._wanted if w in self._samples)
        return tuple(s for s in asked if s.latency is not None and too_noisy(s.latency, self._gate))

    def known(self, workload: Workload) -> Sample | None:
        """The sample if it was ever taken and is usable, a failed one included; measures nothing."""
        if workload not in self._samples:
            sample = self.store.get(workload, self.conditions)
            if sample is None or not self._usable(sample):
                return None
            self._samples[workload] = sample
        return self._samples[workload]

    def sample(self, workload: Workload) -> Sample:
        """The stored sample, or a new one. A failure to measure is a sample too: it is kept and not tried again."""
        self._wanted.add(workload)
        return self.known(workload) or self._take(workload)

    def cost(self, workload: Workload) -> Sample:
        """Like `sample`, for callers that need a latency.

        Raises:
            MeasureError: the kernel could not be built or timed, now or in an earlier run.
        """
        sample = self.sample(workload)
        if sample.latency is None:
            raise MeasureError(f"kernel {workload} has no latency: {sample.failure}")
        return sample

    def cost_many(self, workloads: Iterable[Workload], progress: Progress = no_progress, stage: str = "measure kernels") -> list[Sample]:
        """A sample, perhaps failed, for each distinct workload, in order; progress(stage, done, total) after each.

        What an earlier run measured counts as done from the start, so an interrupted run goes on where it stopped.
        """
        wanted = list(dict.fromkeys(workloads))
        self._wanted.update(wanted)
        missing = [w for w in wanted if self.known(w) is None]
        done = len(wanted) - len(missing)
        progress(stage, done, len(wanted))
        for sample in self._tried(missing):
            self._keep(sample)
            done += 1
            progress(stage, done, len(wanted))
        return [self._samples[w] for w in wanted]

    def _tried(self, workloads: Sequence[Workload]) -> Iterator[Sample]:
        """A sample for each workload, as soon as it is there. The store is left to the caller's thread, which owns it."""
        if self._workers == 1:
            yield from map(self._try, workloads)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            waiting = [pool.submit(self._try, workload) for workload in workloads]
            try:
                for finished in as_completed(waiting):
                    yield finished.result()
            finally:  # after an interrupt, only what is being measured is still waited for
                for future in waiting:
                    future.cancel()

    def _take(self, workload: Workload) -> Sample:
        return self._keep(self._try(workload))

    def _keep(self, sample: Sample) -> Sample:
        """Store a sample at once: an interrupt loses nothing that was measured."""
        self.store.put(sample)
        self._taken.add(sample.workload)
        self._samples[sample.workload] = sample
        return sample

    def _try(self, workload: Workload) -> Sample:
        latency, candidate, failure = None, "", ""
        try:
            latency, candidate = self._quietest(workload)
        except MeasureError as error:
            failure = str(error) or "no reason given"
        return Sample(workload, self.conditions, latency, candidate, datetime.now(UTC).isoformat(timespec="seconds"), failure)

    def _quietest(self, workload: Workload) -> tuple[Latency, str]:
        best = self._measure(workload)
        for _ in range(self._attempts - 1):
            if not too_noisy(best[0], self._gate):
                break
            best = min(best, self._measure(workload), key=lambda found: _spread(found[0]))
        return best


def too_noisy(latency: Latency, gate: float = GATE) -> bool:
    """Whether a measurement's interval is so wide that nothing should be decided by it alone."""
    return _spread(latency) > gate


def _spread(latency: Latency) -> float:
    """Width of the interval as a share of the latency."""
    return (latency.high - latency.low) / latency.seconds
