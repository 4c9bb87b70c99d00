"""Dimension types: extents, kept masks and occurrences against plain enumeration of the indices."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.ir.dims import Concat, Dim, Leaf, Product, extent, kept_mask, leaves, occurrences

A, B, C = Leaf("a", 2), Leaf("b", 3), Leaf(None, 2)


def product(*factors: Dim) -> Product:
    return Product(factors, int(np.prod([f.size for f in factors])))


def concat(*segments: Dim) -> Concat:
    return Concat(segments, sum(s.size for s in segments))


def dims() -> st.SearchStrategy[Dim]:
    leaf = st.sampled_from([A, B, C, Leaf("c", 1), Leaf("d", 4)])

    def join(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        parts = st.lists(inner, min_size=2, max_size=3).filter(lambda p: np.prod([x.size for x in p]) <= 400)
        return parts.map(lambda p: product(*p)) | parts.map(lambda p: concat(*p))

    return st.recursive(leaf, join, max_leaves=5)


def coordinates(dim: Dim) -> list[frozenset[tuple[str, int]]]:
    """For every flat index, the set of (axis, index) that it stands for: the definition, by enumeration."""
    if isinstance(dim, Leaf):
        return [frozenset({(dim.name, i)} if dim.name else set()) for i in range(dim.size)]
    if isinstance(dim, Concat):
        return [c for s in dim.segments for c in coordinates(s)]
    return [frozenset().union(*parts) for parts in itertools.product(*map(coordinates, dim.factors))]


MASKS = {"a": np.array([True, False]), "b": np.array([False, True, True]), "d": np.array([True, False, False, True])}
GONE = {(name, i) for name, mask in MASKS.items() for i, keep in enumerate(mask) if not keep}


@given(dims())
def test_kept_mask_is_the_enumeration(dim: Dim) -> None:
    expected = [not (c & GONE) for c in coordinates(dim)]
    assert kept_mask(dim, MASKS).tolist() == expected


@given(dims())
def test_extent_counts_the_kept_mask(dim: Dim) -> None:
    sizes = {name: int(mask.sum()) for name, mask in MASKS.items()}
    assert extent(dim, sizes) == int(kept_mask(dim, MASKS).sum())
    assert extent(dim, {}) == dim.size


@given(dims())
def test_occurrences_cover_each_index_of_an_axis(dim: Dim) -> None:
    where = coordinates(dim)
    for axis in {leaf.name: leaf for leaf in leaves(dim) if leaf.name}.values():
        for i in range(axis.size):
            found = {int(p) for o in occurrences(dim) if o.axis == axis.name for p in o.positions()[i]}
            assert found == {k for k, c in enumerate(where) if (axis.name, i) in c}


def test_text_of_a_type() -> None:
    assert str(concat(product(A, concat(B, C)), A)) == "a:2*(b:3 ++ 2) ++ a:2"


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_axis_that_is_gone_leaves_nothing_of_its_products(name: str) -> None:
    nothing = {name: np.zeros({"a": 2, "b": 3}[name], dtype=np.bool_)}
    assert not kept_mask(product(A, B, C), nothing).any()
    assert extent(product(A, B, C), {name: 0}) == 0
