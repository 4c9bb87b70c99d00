"""A candidate: one way to make a kernel, as a value that can be stored beside its measured latency."""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A template's name and the parameters it is instantiated with, in the template's own order; a tuned schedule is its trace as JSON."""

    template: str
    params: tuple[tuple[str, int], ...] = ()
    schedule: str = ""

    def __str__(self) -> str:
        tuned = ("tuned",) if self.schedule else ()
        return f"{self.template}({', '.join((*(f'{k}={v}' for k, v in self.params), *tuned))})"

    def __getitem__(self, name: str) -> int:
        """The parameter called `name`; KeyError if the template has no such parameter."""
        for key, value in self.params:
            if key == name:
                return value
        raise KeyError(name)


def candidate(template: str, **params: int) -> Candidate:
    """A candidate with its parameters given by keyword."""
    return Candidate(template, tuple(params.items()))


def candidate_to_json(value: Candidate) -> str:
    """Canonical JSON text; equal candidates give equal texts."""
    return json.dumps([value.template, [list(p) for p in value.params], value.schedule], separators=(",", ":"))


def candidate_from_json(text: str) -> Candidate:
    """Inverse of `candidate_to_json`."""
    template, params, schedule = json.loads(text)
    return Candidate(template, tuple((str(k), int(v)) for k, v in params), str(schedule))
