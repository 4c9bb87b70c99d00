"""A network on an OpenCL device of this machine, with the verbs that every built network has."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from billhook.ir.latency import Latency, Provenance

from .program import OpenClProgram
from .session import Session


class OpenClArtifact:
    """A program, and the session that runs it, begun when it is first needed: a program for another device is only written.

    kernels: the network's kernels in order, each once, however many launches it has.
    """

    threads = 1

    def __init__(self, program: OpenClProgram, kernels: tuple[str, ...]) -> None:
        self.program, self.kernels = program, kernels
        self._session: Session | None = None

    def run(self, *tensors: torch.Tensor | np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs for inputs in torch's order."""
        return self.session.run(*map(torch.as_tensor, tensors))

    def bind(self, *tensors: torch.Tensor | np.ndarray) -> Callable[[], object]:
        """A call that runs one inference on these inputs, up to its end."""
        given, session = tuple(map(torch.as_tensor, tensors)), self.session
        session.set_inputs(*given)
        return session.infer

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(self.program)
        return self._session


def profile(
    artifact: OpenClArtifact, tensors: Sequence[torch.Tensor], provenance: Provenance, repeats: int = 20
) -> list[tuple[str, Latency]]:
    """(kernel, time inside the network) by the device's clock; a kernel of several launches has their sum, a mere view none."""
    session = artifact.session
    session.set_inputs(*tensors)
    session.infer()
    owners = [launch.kernel for launch in artifact.program.launches]
    rounds: list[dict[str, float]] = []
    for _ in range(repeats):
        sums = dict.fromkeys(artifact.kernels, 0.0)
        for owner, seconds in zip(owners, session.time_once(), strict=True):
            sums[owner] += seconds
        rounds.append(sums)
    return [(name, summary(sorted(r[name] for r in rounds), provenance)) for name in artifact.kernels]


def summary(ordered: Sequence[float], provenance: Provenance) -> Latency:
    """Of ascending samples: the lower quartile, between the fastest and the upper quartile."""
    return Latency(ordered[len(ordered) // 4], ordered[0], ordered[3 * len(ordered) // 4], provenance)
