"""Which samples of a database a command means, and summaries of what a database holds."""

from dataclasses import dataclass

from .sample import Conditions

Versions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Samples that meet all that is given; the default selects every sample.

    target: text that the fingerprint contains; versions: (package, version) that the sample was made with;
    not_versions: drop samples that were made with exactly these; before: UTC time in ISO form that the sample is older than;
    failed: only samples without a latency.
    """

    target: str = ""
    versions: Versions = ()
    not_versions: Versions = ()
    before: str = ""
    failed: bool = False

    def admits(self, conditions: Conditions) -> bool:
        """Whether samples of these conditions can be selected."""
        made_with = set(conditions.versions)
        same = bool(self.not_versions) and not stale(conditions.versions, self.not_versions)
        return self.target in conditions.fingerprint and set(self.versions) <= made_with and not same

    @property
    def everything(self) -> bool:
        return self == Selection()


@dataclass(frozen=True, slots=True)
class Group:
    """The samples of one set of conditions: how many, how many failed or came from a device, and when they were taken (ISO, UTC)."""

    conditions: Conditions
    samples: int
    failures: int
    device: int
    oldest: str
    newest: str


@dataclass(frozen=True, slots=True)
class Run:
    """One compilation: how many kernels it needed, and how many of them earlier runs had measured (perhaps for other models)."""

    model: str
    fingerprint: str
    wanted: int
    found: int
    taken_at: str

    @property
    def hit_rate(self) -> float:
        """Share in [0, 1] of the kernels that did not have to be measured; 0 for a run that needed none."""
        return self.found / self.wanted if self.wanted else 0.0


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did: samples that are new to the database, that replaced an older one, that it had as good or better."""

    added: int = 0
    replaced: int = 0
    kept: int = 0

    def __str__(self) -> str:
        return f"{self.added} samples added, {self.replaced} replaced by newer ones, {self.kept} not needed"


def stale(made_with: Versions, installed: Versions) -> str:
    """Why samples made with these versions are not used by the installed ones, in a few words; "" if they are."""
    made, here = dict(made_with), dict(installed)
    differing = [name for name in sorted(made | here) if made.get(name) != here.get(name)]
    return ", ".join(f"{name} {made.get(name, 'absent')}, here {here.get(name, 'absent')}" for name in differing)
