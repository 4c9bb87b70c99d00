"""A plan: which indices of which axes are kept. With the original weights it defines the pruned network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .errors import AxisError
from .explain import explain_axis
from .program import Program


@dataclass(frozen=True)
class Plan:
    """Kept indices (sorted, unique) of every axis that is cut; axes not named stay whole.

    program: what it was made for, if that is known; it explains the plan and is no part of its value.
    """

    kept: Mapping[str, tuple[int, ...]]
    program: Program | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", dict(sorted(self.kept.items())))

    def sizes(self) -> dict[str, int]:
        """Size of every axis that is cut."""
        return {name: len(indices) for name, indices in self.kept.items()}

    def masks(self, program: Program) -> dict[str, NDArray[np.bool_]]:
        """Boolean mask of kept indices per axis that is cut."""
        index = program.axis_index
        masks: dict[str, NDArray[np.bool_]] = {}
        for name, indices in self.kept.items():
            mask = np.zeros(index[name].size, dtype=np.bool_)
            mask[list(indices)] = True
            masks[name] = mask
        return masks

    def explain(self, axis: str) -> str:
        """What is kept of an axis, which parameters move together with it, and through which nodes.

        Raises AxisError for an unknown name, and for a plan that was not made for a program.
        """
        if self.program is None:
            raise AxisError(f"axis {axis}: this plan does not know its program; ask the program to explain the axis")
        return explain_axis(self.program, axis, self.kept.get(self.program.axis(axis).name))

    def __str__(self) -> str:
        return "plan {" + ", ".join(f"{name}: {len(indices)}" for name, indices in self.kept.items()) + "}"


def make_plan(program: Program, kept: Mapping[str, Sequence[int]]) -> Plan:
    """Validate kept indices against the program and close them under aliases.

    Raises AxisError for unknown or frozen axes, indices out of range or repeated, size 0 where the axis is not additive,
    and fewer indices than an operator picks.
    """
    chosen: dict[str, tuple[int, ...]] = {}
    for name, indices in kept.items():
        axis = program.axis(name)
        values = sorted(int(i) for i in indices)
        if len(set(values)) != len(values):
            raise AxisError(f"axis {axis.name}: an index is named twice")
        if values and (values[0] < 0 or values[-1] >= axis.size):
            raise AxisError(f"axis {axis.name}: indices must lie in 0..{axis.size - 1}")
        if len(values) == axis.size:
            continue
        if not axis.prunable:
            raise AxisError(f"axis {axis.name} is frozen: {axis.frozen_because[0]}")
        if not values and not axis.additive:
            raise AxisError(f"axis {axis.name}: size 0 needs readers that sum over it; keep at least one index")
        if 0 < len(values) < axis.least:
            raise AxisError(f"axis {axis.name}: an operator picks {axis.least} of its indices; keep at least as many")
        if axis.name in chosen and chosen[axis.name] != tuple(values):
            raise AxisError(f"axis {axis.name} is named twice, with different indices")
        chosen[axis.name] = tuple(values)
    return Plan(chosen, program)
