"""What a compilation seeks, and within which limits: the objective, latency, activation memory and weight bytes, checked together."""

from dataclasses import dataclass, field
from typing import Any

from .ir.errors import OptionError
from .ir.nearest import suggest
from .options import Budget, MemoryBudget, parse_budget, parse_memory, parse_share

OBJECTIVES = ("importance", "latency", "memory")
HALF = Budget(0.5, "share")
WHOLE = Budget(1.0, "share")
WHOLE_MEMORY = MemoryBudget(1.0, "share")


@dataclass(frozen=True, slots=True)
class Objective:
    """The most "importance" within the limits; or the least "latency" or "memory" that retains at least a share of the importance."""

    name: str = OBJECTIVES[0]
    retain: float | None = None

    @property
    def floor(self) -> float:
        """The share to retain; 0 where there is none."""
        return self.retain or 0.0

    def __str__(self) -> str:
        return self.name if self.retain is None else f"least {self.name} that retains {self.retain:.2%}"


@dataclass(frozen=True, slots=True)
class Goals:
    """Limits are shares of what the dense network takes, or amounts; latency always has one. low_rank: layers may become two thin ones."""

    latency: Budget = HALF
    objective: Objective = field(default_factory=Objective)
    memory: MemoryBudget | None = None
    weights: MemoryBudget | None = None
    low_rank: bool = False


def as_arguments(goals: Goals) -> dict[str, Any]:
    """The goals as `bh.compile` takes them."""
    named: dict[str, Any] = {"objective": goals.objective.name, "retain": goals.objective.retain, "latency": goals.latency}
    return named | {"memory": goals.memory, "weights": goals.weights, "low_rank": goals.low_rank}


def parse_objective(name: str, retain: str | float | None, option: str = "--objective", share: str = "--retain") -> Objective:
    """An objective and the share that it retains.

    Raises:
        OptionError: no such objective, a floor where the most is sought, or none where the least is.
    """
    if name not in OBJECTIVES:
        raise OptionError(f"{option} {name}: no such objective{suggest(name, OBJECTIVES)} (known: {', '.join(OBJECTIVES)})")
    if name == OBJECTIVES[0]:
        if retain is not None:
            raise OptionError(f"{share} {retain}: with {option} {name} the most is retained; leave it out, or seek least latency or memory")
        return Objective()
    if retain is None:
        raise OptionError(f"{option} {name}: the least of what? add {share}, the share of importance to keep, such as 90%")
    return Objective(name, parse_share(retain, share))


def make_goals(
    latency: Budget | float | str | None,
    *,
    objective: str = OBJECTIVES[0],
    retain: float | str | None = None,
    memory: MemoryBudget | float | str | None = None,
    weights: MemoryBudget | float | str | None = None,
    preset: str | None = None,
    sparsity: str | None = None,
    low_rank: bool = False,
) -> Goals:
    """Check options against each other. latency: None is half of the dense one, or all of it where the least is sought.

    Raises:
        OptionError: an option that cannot be read, or two that exclude each other.
    """
    sought = parse_objective(objective, retain, "objective", "retain")
    if preset is not None:
        for name, limit in (("memory", memory), ("weights", weights)):
            if limit is not None:
                raise OptionError(f"{name} {limit}: preset {preset} keeps no limit but the latency; leave one of them out")
        if sought.retain is not None:
            raise OptionError(f"objective {objective}: preset {preset} takes a latency, not a floor; leave one of them out")
    if sparsity is not None and sought.retain is not None:
        raise OptionError(f"objective {objective}: sparse layers are chosen for a latency, not a floor; leave out sparsity {sparsity}")
    others = {"preset": preset, "sparsity": sparsity, "memory": memory, "weights": weights, "retain": retain}
    beside = [f"{name} {value}" for name, value in others.items() if value is not None]
    if low_rank and beside:
        raise OptionError(f"low_rank: layers are factored for a latency only so far, not with {beside[0]}; leave one of them out")
    given = latency if latency is not None else WHOLE if objective == "latency" else HALF
    return Goals(
        given if isinstance(given, Budget) else parse_budget(given, "latency"),
        sought,
        _bytes(memory, "memory"),
        _bytes(weights, "weights"),
        low_rank,
    )


def _bytes(given: MemoryBudget | float | str | None, option: str) -> MemoryBudget | None:
    return given if given is None or isinstance(given, MemoryBudget) else parse_memory(given, option)
