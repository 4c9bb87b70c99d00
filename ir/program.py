"""A Program: a captured network, and what the passes have found out about it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from .axis import Axis
from .dims import Dim
from .errors import AxisError

FACTORED = "factored"  # in a graph's meta: names of the weights that are the outer one of two factors (`passes.low_rank`)


@dataclass(frozen=True, slots=True)
class SizeOf:
    """A placeholder in an `Edit`: the extent of a dimension, evaluated after the cut."""

    dim: Dim


@dataclass(frozen=True, slots=True)
class Edit:
    """How a node's shape constants follow its axes: its arguments with `SizeOf` where a literal depends on widths.

    op: another operator to use once widths change, or None; scale: a constant to multiply the result by, or None
    (both keep values that an operator would recompute from a width, such as an average's divisor).
    """

    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    op: Any = None
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A node sums or takes a statistic over a dimension of one argument: where a mask has to act.

    position: index into the node's tensor arguments (flattened, in order); statistic: False for plain sums, where
    zeroed indices vanish; True where the reference has to compute over the kept indices only. part: the part of the
    dimension that is read (the members of a group, not the groups), or None for all of it. fill: what stands for a removed
    index, None for the usual zero; a statistic with a fill is taken over the whole filled dimension, so that the positions
    that it tells are dense ones.
    """

    node: str
    position: int
    dim: int
    statistic: bool = False
    part: Dim | None = None
    fill: float | None = None


@dataclass(frozen=True)
class Program:
    """A network as a graph of ATen operators with named state, and the type of every dimension once inferred.

    graph: nodes are placeholders (inputs), get_attr (state by its qualified name), ATen calls, one output. `meta["val"]`
    of a node holds a fake tensor with shape and dtype. The graph is shared between Programs and never mutated.
    model: the user's own module, or None. example: the arguments it was captured with.
    """

    graph: fx.GraphModule
    model: torch.nn.Module | None
    example: tuple[tuple[Any, ...], Mapping[str, Any]]
    origin: str  # "export" or "concrete": how it was captured
    types: Mapping[str, tuple[Dim, ...]] = field(default_factory=dict[str, tuple[Dim, ...]])
    axes: tuple[Axis, ...] = ()
    edits: Mapping[str, Edit] = field(default_factory=dict[str, Edit])
    reads: tuple[Read, ...] = ()

    @property
    def factored(self) -> tuple[str, ...]:
        """Names of the weights whose layers are two here, and one in the user's model."""
        return tuple(self.graph.meta.get(FACTORED, ()))

    def axis(self, name: str) -> Axis:
        """The axis with this name or alias. Raises AxisError with the nearest names."""
        found = self.axis_index.get(name)
        if found is None:
            import difflib

            near = difflib.get_close_matches(name, self.axis_index, n=3)
            raise AxisError(f"no axis is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
        return found

    @property
    def axis_index(self) -> dict[str, Axis]:
        """Axes by name and by alias."""
        index = {alias: axis for axis in self.axes for alias in axis.aliases}
        index.update({axis.name: axis for axis in self.axes})
        return index

    def nodes(self) -> Iterator[fx.Node]:
        return iter(self.graph.graph.nodes)

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers and constants that the graph reads, by qualified name."""
        return {str(n.target): state_of(self.graph, str(n.target)) for n in self.nodes() if n.op == "get_attr"}

    def explain(self, axis: str) -> str:
        """Which parameters move together with an axis, and through which nodes, as text. Raises AxisError for an unknown name."""
        from .explain import explain_axis

        return explain_axis(self, axis)

    def __str__(self) -> str:
        from .text import format_program

        return format_program(self)


def state_of(module: torch.nn.Module, name: str) -> torch.Tensor:
    """The tensor with a dotted name. Raises KeyError if the attribute is not a tensor."""
    here: Any = module
    for part in name.split("."):
        here = getattr(here, part)
    if not isinstance(here, torch.Tensor):
        raise KeyError(name)
    return here


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's single tensor result as captured."""
    return tuple(int(s) for s in node.meta["val"].shape)


def operator_of(node: fx.Node) -> str:
    """Name of the operator that a node calls, without its overload ("aten.conv2d"); empty if it calls none."""
    return str(node.target).rpartition(".")[0] if node.op == "call_function" else ""


def writes_in_place(node: fx.Node) -> bool:
    """Whether a node's operator writes into its first argument: torch ends the names of such with an underscore."""
    return operator_of(node).endswith("_")


def tensor_args(node: fx.Node) -> list[fx.Node]:
    """The nodes among a node's arguments, flattened in order, repeats kept."""
    found: list[fx.Node] = []
    _collect_nodes(node.args, found)
    _collect_nodes(node.kwargs.values(), found)
    return found


def _collect_nodes(values: Iterable[Any], found: list[fx.Node]) -> None:
    for value in values:
        if isinstance(value, fx.Node):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect_nodes(cast("Iterable[Any]", value), found)
