"""Kernel families of a partitioned network: each kernel as a function of the few widths that its latency surface is over."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

from billhook.ir.dims import Concat, Dim, Leaf, Product, leaves
from billhook.ir.target import Target
from billhook.ir.workload import Workload

from .family import Coordinate, Widths
from .network_cost import Kernel
from .shaped_kernel import ShapedKernel
from .widths import WidthModel

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
        for axes, width in zip(self.axes, widths, strict=True):
            sizes.update(zip((name for name, _ in axes), _shares(width, [size for _, size in axes]), strict=True))
        return self.kernel.at(sizes)


def kernels_of(model: WidthModel, target: Target, fixed: Mapping[str, int], removable: Collection[str] = ()) -> tuple[Kernel, ...]:
    """All kernels of a network with their families, in execution order.

    Coordinates are the prunable axes that a kernel's shape depends on; axes that it sees only as their sum (it reads a
    concatenation) are one coordinate. fixed: sizes of axes that nobody chooses, such as the batch. removable: axes that
    may get size 0; a kernel whose every reader goes with such an axis has it as a further coordinate.
    """
    free = {axis.name: axis.size for axis in model.program.axes if axis.prunable and axis.name not in fixed}
    return tuple(Kernel(k.name, _family(k, target, free, frozenset(removable), fixed)) for k in model.kernels)


def _family(
    kernel: ShapedKernel, target: Target, free: Mapping[str, int], removable: frozenset[str], fixed: Mapping[str, int]
) -> KernelFamily:
    sums = _sums(kernel, free)
    names = {s: "+".join(s) for s in sums}
    summed = {axis for s in sums for axis in s}
    changed = kernel.replaced(lambda dim: _merged(dim, names, free))
    shape: list[tuple[Coordinate, str, int]] = [(s, names[s], sum(free[a] for a in s)) for s in sums]
    shape += [((axis,), axis, free[axis]) for axis in kernel.axes if axis in free and axis not in summed]
    gates = sorted(axis for axis in kernel.gates & removable if axis in free and axis not in kernel.axes)
    coordinates: list[Coordinate] = [c for c, _, _ in shape]
    axes = [((name, size),) for _, name, size in shape]
    rounded = _rounded_axes(changed)
    steps = [target.width_step if name in rounded else 1 for _, name, _ in shape]
    if len(shape) > MOST:
        coordinates, axes = [tuple(a for c in coordinates for a in c)], [tuple(a for entry in axes for a in entry)]
        steps = [min(steps)]
    # every size of a gate but 0 costs the same
    gate_axes = [((axis, free[axis]),) for axis in gates]
    return KernelFamily(
        changed, (*coordinates, *((g,) for g in gates)), (*axes, *gate_axes), (*steps, *(free[g] for g in gates)), dict(fixed)
    )


def _shares(width: int, sizes: list[int]) -> list[int]:
    """A width shared in proportion to sizes, in whole numbers that add up to it."""
    total, ends = sum(sizes), list(accumulate(sizes))
    cuts = [0, *(round(width * end / total) for end in ends)]
    return [after - before for before, after in pairwise(cuts)]


def _sums(kernel: ShapedKernel, free: Collection[str]) -> list[Coordinate]:
    """Groups of at least two free axes (repeats counted) that the kernel's dimensions contain only as that sum."""
    seen: dict[str, set[Coordinate]] = {}
    for dim in kernel.dims():
        for group in _terms(dim, free):
            for axis in group:
                seen.setdefault(axis, set()).add(group)
    groups = {next(iter(found)) for found in seen.values() if len(found) == 1}
    return sorted(g for g in groups if len(g) > 1 and all(seen[axis] == {g} for axis in g))


def _terms(dim: Dim, free: Collection[str]) -> list[Coordinate]:
    """The maximal sums of free axes inside a dimension."""
    if isinstance(dim, Leaf):
        return [(dim.name,)] if dim.name is not None and dim.name in free else []
    if isinstance(dim, Product):
        return [t for f in dim.factors for t in _terms(f, free)]
    plain = _plain_sum(dim, free)
    return [plain] if plain is not None else [t for s in dim.segments for t in _terms(s, free)]


def _plain_sum(dim: Concat, free: Collection[str]) -> Coordinate | None:
    """The free axes of a concatenation of axes and fixed extents, sorted; None if a segment is anything else, or none is free."""
    if not all(isinstance(s, Leaf) for s in dim.segments):
        return None
    named = sorted(s.name for s in dim.segments if isinstance(s, Leaf) and s.name is not None and s.name in free)
    return tuple(named) or None


def _merged(dim: Dim, names: Mapping[Coordinate, str], free: Collection[str]) -> Dim:
    """A dimension with every sum that is a coordinate replaced by one axis."""
    if isinstance(dim, Leaf):
        return dim
    if isinstance(dim, Product):
        return Product(tuple(_merged(f, names, free) for f in dim.factors), dim.size)
    group = _plain_sum(dim, free)
    if group is None or group not in names:
        return Concat(tuple(_merged(s, names, free) for s in dim.segments), dim.size)
    fixed = tuple(s for s in dim.segments if isinstance(s, Leaf) and s.name not in free)
    total = Leaf(names[group], dim.size - sum(s.size for s in fixed))
    return Concat((total, *fixed), dim.size) if fixed else total


def _rounded_axes(kernel: ShapedKernel) -> set[str]:
    """Axes whose width the hardware rounds up: channels of blocked maps, and what convolutions and linear maps make."""
    made = [kernel.inputs[1].dims[0]] if kernel.calls[0].call.op in {"aten.conv2d.default", "aten.linear.default"} else []
    rounded = [*(t.dims[1] for t in (*kernel.inputs, kernel.output) if t.blocked), *made]
    inside = {name for dim in kernel.dims() if not isinstance(dim, Leaf) for name in _names(dim)}
    return {dim.name for dim in rounded if isinstance(dim, Leaf) and dim.name and dim.name not in inside}


def _names(dim: Dim) -> Iterator[str]:
    return (leaf.name for leaf in leaves(dim) if leaf.name)
