"""Axes: one dependency group each, with every place in the parameters where it occurs."""

from dataclasses import dataclass
from typing import Literal

from .dims import Occurrence

Role = Literal["producer", "consumer", "scale"]


@dataclass(frozen=True, slots=True)
class Member:
    """One occurrence of an axis in a parameter, buffer or constant.

    role: "producer" where the tensor makes the axis (output side of a weight, its bias), "consumer" where it reads it
    (input side), "scale" where it acts index by index (norm weights and statistics, gates, depthwise filters).
    """

    tensor: str
    dim: int
    role: Role
    place: Occurrence


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an axis may not be cut: the node, its operator, the user's source line if known, and the rule's words."""

    node: str
    op: str
    why: str
    source: str = ""

    def __str__(self) -> str:
        where = f" at {self.source}" if self.source else ""
        return f"{self.why} ({self.op}, node {self.node}{where})"


@dataclass(frozen=True, slots=True)
class Axis:
    """An equivalence class of indices: removing index i removes it from every member at once.

    mixing: some operator takes a statistic over the axis (LayerNorm, softmax, ...), so removal changes what remains.
    additive: every reader of the axis sums over it, so size 0 is meaningful and removes the branch.
    least: the fewest indices that may be kept, unless none is (an operator that picks the best k needs k to pick from).
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen_because: tuple[Reason, ...] = ()
    mixing: bool = False
    additive: bool = False
    least: int = 1
    aliases: tuple[str, ...] = ()

    @property
    def prunable(self) -> bool:
        return not self.frozen_because

    def __str__(self) -> str:
        state = "frozen: " + str(self.frozen_because[0]) if self.frozen_because else "prunable"
        return f"{self.name}[{self.size}] {len(self.members)} members, {state}{', mixing' if self.mixing else ''}"
