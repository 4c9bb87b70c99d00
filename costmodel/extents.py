"""Extents as polynomials in the sizes of axes: dimensions of equal polynomials have one width, however they are written."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

from billhook.ir.dims import Concat, Dim, Leaf, Product

from .family import Coordinate

Polynomial: TypeAlias = Mapping[tuple[str, ...], int]  # coefficient of each monomial, a sorted tuple of axes with repeats


def extent_polynomial(dim: Dim, free: Collection[str], fixed: Mapping[str, int]) -> Polynomial:
    """The extent of a dimension over the axes in `free`; all others have their size, or the one in `fixed`."""
    if isinstance(dim, Leaf):
        return {(dim.name,): 1} if dim.name is not None and dim.name in free else {(): fixed.get(dim.name or "", dim.size)}
    parts = [extent_polynomial(d, free, fixed) for d in (dim.segments if isinstance(dim, Concat) else dim.factors)]
    return reduce(_plus if isinstance(dim, Concat) else _times, parts)


@dataclass(frozen=True, slots=True)
class Extent:
    """scale * coordinate + constant."""

    coordinate: Coordinate
    scale: int
    constant: int

    def dim(self, name: str, dense: Mapping[str, int]) -> Dim:
        """A dimension of this extent, in which one axis stands for the coordinate."""
        size = self.coordinate.at(dense)
        leaf: Dim = Leaf(name, size)
        if self.scale > 1:
            leaf = Product((Leaf(None, self.scale), leaf), self.scale * size)
        return Concat((leaf, Leaf(None, self.constant)), leaf.size + self.constant) if self.constant else leaf


def extent(polynomial: Polynomial) -> Extent | None:
    """A polynomial as a product of sums, by taking out the axes that all its monomials share; None if it has no such form.

    The q ++ k ++ v of attention, h*a + h*a + h*v, is h * (a + a + v).
    """
    terms = {m: c for m, c in polynomial.items() if m and c}
    if not terms:
        return None
    scale = math.gcd(*terms.values())
    shared = reduce(lambda a, b: a & b, map(Counter, terms))
    rest = {tuple((Counter(m) - shared).elements()): c // scale for m, c in terms.items()}
    common = sorted(shared.elements())
    constant = polynomial.get((), 0)
    if len(rest) == 1 and () in rest:
        return Extent(Coordinate(tuple((a,) for a in common)), scale, constant)
    if any(len(m) != 1 for m in rest) or (constant and common):
        return None
    summed = tuple(m[0] for m in sorted(rest) for _ in range(rest[m]))
    return Extent(Coordinate((*((a,) for a in common), summed)), scale, constant)


def _plus(a: Polynomial, b: Polynomial) -> Polynomial:
    return {m: a.get(m, 0) + b.get(m, 0) for m in {**a, **b}}


def _times(a: Polynomial, b: Polynomial) -> Polynomial:
    total: Counter[tuple[str, ...]] = Counter()
    for m, c in a.items():
        for n, d in b.items():
            total[tuple(sorted(m + n))] += c * d
    return total
