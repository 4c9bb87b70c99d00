"""Kernel families of a partitioned network: each kernel as a function of the few widths that its latency surface is over."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TypeAlias

import networkx as nx

from billhook.ir.dims import Dim, Leaf, leaves
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .extents import extent, extent_polynomial
from .family import Coordinate, Widths, width
from .network_cost import Kernel
from .shaped_kernel import ShapedKernel
from .widths import WidthModel

Graph: TypeAlias = "nx.Graph[str]"
MOST = 3  # coordinates of a surface: beyond that, all shape axes become one, their sum


@dataclass(frozen=True, slots=True)
class KernelFamily:
    """A kernel over its coordinates; see `costmodel.family.Family`.

    axes: for each coordinate, the axes of `kernel` that share its width, with their dense sizes. Several share it in
    proportion to these: an approximation for kernels that read many axes one by one, such as long concatenations.
    """

    kernel: ShapedKernel
    coordinates: tuple[Coordinate, ...]
    axes: tuple[tuple[tuple[str, int], ...], ...]
    steps: Widths
    fixed: Mapping[str, int]

    def workload(self, widths: Widths, /) -> Workload | None:
        """The kernel for one width per coordinate; None where it vanishes."""
        sizes = dict(self.fixed)
        for axes, total in zip(self.axes, widths, strict=True):
            sizes.update(zip((name for name, _ in axes), _shares(total, [size for _, size in axes]), strict=True))
        return self.kernel.at(sizes)


def kernels_of(model: WidthModel, target: Target, fixed: Mapping[str, int], removable: Collection[str] = ()) -> tuple[Kernel, ...]:
    """All kernels of a network with their families, in execution order.

    Coordinates are the prunable axes that a kernel's shape depends on; axes that it sees only together are fewer coordinates:
    the total width of a concatenation, heads times their width. fixed: sizes of axes that nobody chooses, such as the batch.
    removable: axes that may get size 0; a kernel whose every reader goes with such an axis has it as a further coordinate, as long as
    there are at most MOST: of axes beyond that the kernel is believed to stay, which costs too much rather than too little.
    """
    free = _free(model, fixed)
    return tuple(Kernel(k.name, _family(k, target, free, frozenset(removable), fixed)) for k in model.kernels)


def values_of(model: WidthModel, target: Target, fixed: Mapping[str, int]) -> tuple[Kernel, ...]:
    """For every kernel the value that it makes, under the value's name: a kernel of no inputs and calls, over the output's axes alone.

    The value is there wherever its shape is not empty, even where the kernel itself vanishes and what it would read passes through.
    """
    free = _free(model, fixed)
    names = [k.output for k in model.partition.network.kernels]
    alone = [replace(k, inputs=(), roles=(), calls=(), gates=frozenset[str]()) for k in model.kernels]
    return tuple(Kernel(n, _family(k, target, free, frozenset(), fixed)) for n, k in zip(names, alone, strict=True))


def _free(model: WidthModel, fixed: Mapping[str, int]) -> dict[str, int]:
    """Sizes of the axes that are to be chosen."""
    return {axis.name: axis.size for axis in model.program.axes if axis.prunable and axis.name not in fixed}


def _family(
    kernel: ShapedKernel, target: Target, free: Mapping[str, int], removable: frozenset[str], fixed: Mapping[str, int]
) -> KernelFamily:
    shape = _coordinates(kernel, free, fixed)
    gates = sorted(kernel.gates & removable & free.keys())
    if len(shape) <= MOST:
        kernel = kernel.replaced(lambda dim: _merged(dim, shape, free, fixed))
        rounded = _rounded_axes(kernel)
        axes = [((str(c), c.at(free)),) for c in shape]
        steps = [target.width_step if str(c) in rounded else 1 for c in shape]
        shape = [_needing(c, kernel, gates, fixed) for c in shape]
    else:
        together = tuple(a for a in kernel.axes if a in free)
        axes, steps, shape = [tuple((a, free[a]) for a in together)], [1], [width(*together)]
    alone = [g for g in gates if not any(g in c.axes for c in shape)][: MOST - len(shape)]
    # every size of a gate but 0 costs the same
    return KernelFamily(
        kernel,
        (*shape, *map(width, alone)),
        (*axes, *(((g, free[g]),) for g in alone)),
        (*steps, *(free[g] for g in alone)),
        dict(fixed),
    )


def _needing(coordinate: Coordinate, kernel: ShapedKernel, gates: list[str], fixed: Mapping[str, int]) -> Coordinate:
    """The coordinate that is 0 where one of its axes is without which the kernel vanishes, if it vanishes with the coordinate."""
    if coordinate.axis is not None or kernel.at({**fixed, str(coordinate): 0}) is not None:
        return coordinate
    return replace(coordinate, needs=tuple(g for g in gates if g in coordinate.axes and (g,) not in coordinate.factors))


def _coordinates(kernel: ShapedKernel, free: Mapping[str, int], fixed: Mapping[str, int]) -> list[Coordinate]:
    """The fewest widths that the kernel's shape follows from: of axes that meet in a dimension either they, or what they make there."""
    around = [d for c in kernel.calls if c.instead for d in c.around]
    polynomials = [p for d in (*kernel.dims(), *around) if any(p := extent_polynomial(d, free, fixed))]
    meeting: Graph = nx.Graph()
    for axes in ({a for m in p for a in m} for p in polynomials):
        ordered = sorted(axes)
        meeting.add_nodes_from(ordered)
        meeting.add_edges_from(pairwise(ordered))
    found: list[Coordinate] = []
    for group in sorted(map(sorted, nx.connected_components(meeting))):
        made = {e.coordinate if (e := extent(p)) else None for p in polynomials if any(a in group for m in p for a in m)}
        composite = sorted((c for c in made if c is not None), key=str)
        found += composite if len(composite) == len(made) < len(group) else [width(a) for a in group]
    return sorted(found, key=lambda c: (c.axis is not None, str(c)))


def _shares(width: int, sizes: list[int]) -> list[int]:
    """A width shared in proportion to sizes, in whole numbers that add up to it."""
    total, ends = sum(sizes), list(accumulate(sizes))
    cuts = [0, *(round(width * end / total) for end in ends)]
    return [after - before for before, after in pairwise(cuts)]


def _merged(dim: Dim, shape: Collection[Coordinate], free: Mapping[str, int], fixed: Mapping[str, int]) -> Dim:
    """A dimension over one axis that stands for its coordinate; unchanged if there is none."""
    found = extent(extent_polynomial(dim, free, fixed))
    if found is None or found.coordinate.axis is not None or found.coordinate not in shape:
        return dim
    return found.dim(str(found.coordinate), free)


def _rounded_axes(kernel: ShapedKernel) -> set[str]:
    """Axes whose width the hardware rounds up: channels of blocked maps, and what convolutions and linear maps make."""
    anchors = [c.call.op for c in kernel.calls[:1]]
    made = [kernel.inputs[1].dims[0]] if anchors in (["aten.conv2d.default"], ["aten.linear.default"]) else []
    rounded = [*(t.dims[1] for t in (*kernel.inputs, kernel.output) if t.blocked), *made]
    inside = {name for dim in kernel.dims() if not isinstance(dim, Leaf) for name in _names(dim)}
    return {dim.name for dim in rounded if isinstance(dim, Leaf) and dim.name and dim.name not in inside}


def _names(dim: Dim) -> Iterator[str]:
    return (leaf.name for leaf in leaves(dim) if leaf.name)
