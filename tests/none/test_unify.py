"""Unification: merging, refinement, refusal, and that it ends quickly."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.ir.axis import Reason
from billhook.passes.unify import Atom, Cat, Conflict, Term, atoms, cat, freeze, mark, prod, resolve, split, unify

WHY = Reason("node", "op", "because")


def sizes(term: Term) -> list[int]:
    return [a.size for a in atoms(term)]


def test_equal_atoms_merge_with_their_reasons_and_marks() -> None:
    a, b, c = Atom(4), Atom(4), Atom(4)
    freeze(a, WHY)
    mark(c, "mixing")
    unify(a, b)
    unify(b, c)
    root = resolve(a)
    assert isinstance(root, Atom)
    assert resolve(b) is root
    assert resolve(c) is root
    assert root.frozen == [WHY]
    assert root.marks == {"mixing"}


def test_an_atom_is_refined_by_a_product_and_hands_its_reasons_on() -> None:
    whole, outer, inner = Atom(12), Atom(3), Atom(4)
    freeze(whole, WHY)
    unify(whole, prod([outer, inner]))
    assert atoms(whole) == [outer, inner]
    assert outer.frozen == inner.frozen == [WHY]


def test_products_align_from_the_innermost_factor() -> None:
    left: list[Term] = [Atom(2), Atom(12)]
    right: list[Term] = [Atom(6), Atom(4)]
    unify(prod(left), prod(right))
    assert sizes(prod(left)) == sizes(prod(right)) == [2, 3, 4]
    assert atoms(prod(left)) == atoms(prod(right))


def test_concatenations_are_cut_where_either_has_a_boundary() -> None:
    left: list[Term] = [Atom(4), Atom(6)]
    right: list[Term] = [Atom(3), Atom(7)]
    unify(cat(left), cat(right))
    assert sizes(cat(left)) == [3, 1, 6]
    assert atoms(cat(left)) == atoms(cat(right))


def test_a_factor_common_to_all_segments_is_taken_out_of_a_concatenation() -> None:
    a, b, inner, outer = Atom(4), Atom(6), Atom(2), Atom(5)
    unify(cat([a, b]), prod([outer, inner]))
    assert sizes(cat([a, b])) == [2, 2, 3, 2]
    assert atoms(outer)[0].size == 2


def test_a_cut_through_one_index_sets_that_index_apart_and_freezes_it() -> None:
    outer, inner = Atom(3), Atom(4)
    left, right = split(prod([outer, inner]), 6, WHY)
    assert (left.size, right.size) == (6, 6)
    assert sizes(outer) == [1, 1, 1]
    unit = atoms(outer)[1]
    assert unit.frozen[0].node == "node"
    assert "cuts through" in unit.frozen[0].why
    assert not atoms(outer)[0].frozen


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([Atom(4)], [Atom(5)]),
        ([Atom(4), Atom(6)], [Atom(6), Atom(4)]),
    ],
)
def test_what_does_not_factor_is_refused(left: list[Term], right: list[Term]) -> None:
    with pytest.raises(Conflict):
        unify(prod(left), prod(right))


def test_an_axis_never_contains_itself() -> None:
    a = Atom(4)
    with pytest.raises(Conflict):
        unify(a, concatenation_with(a))


def concatenation_with(a: Atom) -> Term:
    return Cat((a, Atom(0)), 4)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_segment_boundaries_are_the_union_of_both_sides(parts: list[int], data: st.DataObject) -> None:
    total = sum(parts)
    cuts = sorted(data.draw(st.sets(st.integers(1, total), max_size=5)) | {total})
    other = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
    left, right = cat([Atom(n) for n in parts]), cat([Atom(n) for n in other])
    unify(left, right)
    ends = {sum(parts[: i + 1]) for i in range(len(parts))} | set(cuts)
    found = [a.size for a in atoms(left)]
    assert {sum(found[: i + 1]) for i in range(len(found))} == ends
    assert atoms(left) == atoms(right)


@given(st.permutations([2, 2, 3, 5]), st.integers(1, 3), st.integers(1, 3))
def test_regrouping_one_shape_two_ways_gives_the_same_atoms(factors: list[int], i: int, j: int) -> None:
    base = [Atom(n) for n in factors]

    def grouped(at: int) -> list[Term]:
        groups: list[Term] = []
        for part in (base[:at], base[at:]):
            whole = Atom(prod(list(part)).size)
            unify(whole, prod(list(part)))
            groups.append(whole)
        return groups

    unify(prod(grouped(i)), prod(grouped(j)))
    assert all(isinstance(resolve(a), Atom) for a in base)


def test_ten_thousand_equations_leave_shallow_chains() -> None:
    """Union by rank: the depth of the deepest chain of bindings stays logarithmic."""
    atoms_ = [Atom(8) for _ in range(10_000)]
    for a, b in itertools.pairwise(atoms_):
        unify(a, b)

    def depth(atom: Atom) -> int:
        here, steps = atom, 0
        while isinstance(here.bound, Atom):
            here, steps = here.bound, steps + 1
        return steps

    assert max(map(depth, atoms_)) <= 14


def test_a_wide_concatenation_is_unified_without_recursion() -> None:
    left, right = cat([Atom(2) for _ in range(5_000)]), cat([Atom(5) for _ in range(2_000)])
    unify(left, right)
    assert atoms(left) == atoms(right)
    assert len(atoms(left)) == 6_000
