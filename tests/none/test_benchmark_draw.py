"""Random width assignments: repeatable, among the candidates, never without a path to the output."""

import itertools

from small_networks import program

from benchmarks.prediction.draw import INDEPENDENT, LEVEL, assignments
from billhook.ir.target import Target
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.removal import keeps_paths


def test_assignments_are_feasible_candidates_and_the_same_for_a_seed() -> None:
    net = program("resnet")
    candidates = candidate_sizes(net, Target("llvm"))
    drawn = list(itertools.islice(assignments(net, candidates, 1), 12))
    assert drawn == list(itertools.islice(assignments(net, candidates, 1), 12))
    assert drawn != list(itertools.islice(assignments(net, candidates, 2), 12))
    assert [kind for kind, _ in drawn] == [INDEPENDENT, LEVEL] * 6
    for kind, sizes in drawn:
        assert all(size in candidates[name] for name, size in sizes.items())
        assert sizes.keys() == candidates.keys()
        gone = [name for name, size in sizes.items() if size == 0]
        assert keeps_paths(net, gone)
        assert not (kind == LEVEL and gone)


def test_levels_spread_the_networks() -> None:
    net = program("resnet")
    candidates = candidate_sizes(net, Target("llvm"))
    drawn = itertools.islice(assignments(net, candidates, 0), 40)
    totals = [sum(sizes.values()) / sum(c[-1] for c in candidates.values()) for kind, sizes in drawn if kind == LEVEL]
    assert max(totals) - min(totals) > 0.4
