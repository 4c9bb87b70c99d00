"""Peak activation memory: the model against cut networks, the limit against enumeration of all plans."""

import random
from itertools import product

import pytest
from memory_cases import TARGET, forked, memory_of
from small_networks import program
from tiny import example, tiny

import billhook as bh
from billhook.costmodel.partition import partition
from billhook.ir.errors import BudgetError, OptionError
from billhook.ir.memory import arena_bytes, plan_memory, tensor_bytes
from billhook.ir.network import Network
from billhook.ir.plan import Plan, make_plan
from billhook.ir.program import Program
from billhook.passes.allocate import evaluate, solve
from billhook.passes.allocation_memory import MemoryLimit, bounded, solve_within_memory
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.removal import removable_axes


def network_of(traced: Program, plan: Plan) -> Network:
    return partition(normalise_for_inference(cut_graph(traced, plan), traced.example), TARGET).network


def alive(network: Network) -> int:
    """The most bytes that live at once, step by step from nothing but the list of kernels."""
    sizes = {k.output: tensor_bytes(k.workload.output) for k in network.kernels}
    reads = [set(k.inputs) for k in network.kernels]
    most = 0
    for step in range(len(network.kernels)):
        later = set(network.outputs).union(*reads[step:])
        most = max(most, sum(sizes[k.output] for k in network.kernels[:step] if k.output in later) + sizes[network.kernels[step].output])
    return most


@pytest.mark.parametrize("name", ["resnet", "densenet", "shufflenet", "vit"])
def test_bytes_are_those_of_the_cut_network(name: str) -> None:
    traced = program(name)
    memory = memory_of(traced, dict(candidate_sizes(traced, TARGET)))
    rng = random.Random(len(name))
    kept = {a.name: sorted(rng.sample(range(a.size), rng.randint(min(2, a.size), a.size))) for a in traced.axes if a.prunable}
    for plan in (make_plan(traced, {}), make_plan(traced, kept)):
        network = network_of(traced, plan)
        found = memory.bytes_at({**{a.name: a.size for a in traced.axes}, **plan.sizes()})
        assert list(found.values()) == [tensor_bytes(k.workload.output) for k in network.kernels]
        sizes = {**{a.name: a.size for a in traced.axes}, **plan.sizes()}
        assert memory.peak(sizes) == alive(network)
        assert memory.arena(sizes) == arena_bytes(network) >= memory.peak(sizes)


def test_a_removed_branch_is_never_counted_for_too_little() -> None:
    traced = program("resnet")
    memory = memory_of(traced, dict(candidate_sizes(traced, TARGET)))
    for axis in removable_axes(traced)[:3]:
        assert memory.peak({**{a.name: a.size for a in traced.axes}, axis.name: 0}) >= alive(
            network_of(traced, make_plan(traced, {axis.name: ()}))
        )


@pytest.mark.parametrize("share", [0.4, 0.6, 0.75, 0.9])
def test_the_best_plan_within_the_limit_is_found(share: float) -> None:
    problem, candidates, memory = forked()
    fixed = {n: s[-1] for n, s in candidates.items()}
    budget = 0.9 * evaluate(problem, {n: v.sizes[-1] for n, v in problem.variables.items()}).seconds
    limit = MemoryLimit(memory, candidates, share * memory.peak(fixed))
    found, moments = solve_within_memory(problem, budget, limit, lambda p, goal: solve(p, goal, gap=1e-5))
    assert len(moments) <= len(memory.moments)
    plans = [dict(zip(problem.variables, s, strict=True)) for s in product(*(v.sizes for v in problem.variables.values()))]
    within = [p for p in plans if memory.peak({**fixed, **p}) <= limit.bytes and evaluate(problem, p).seconds <= budget]
    best = max(evaluate(problem, p).value for p in within)
    assert dict(found.sizes) in within
    assert found.value == pytest.approx(best, rel=1e-4)
    assert share > 0.8 or best < max(evaluate(problem, p).value for p in plans if evaluate(problem, p).seconds <= budget)  # it binds


def test_every_moment_s_tables_add_up_to_what_lives_then() -> None:
    problem, candidates, memory = forked()
    limit = MemoryLimit(memory, candidates, 1e4)
    moments = tuple(memory.moments)
    rng = random.Random(0)
    for _ in range(10):
        sizes = {n: rng.choice(v.sizes) for n, v in problem.variables.items()}
        totals = evaluate(bounded(problem, limit, moments), sizes).resources
        assert {m: totals[f"bytes alive at {m}"] for m in moments} == limit.peaks(sizes)


def test_a_limit_that_cannot_be_kept_is_said() -> None:
    problem, candidates, memory = forked()
    with pytest.raises(BudgetError, match="MB of activations"):
        solve_within_memory(problem, 1e9, MemoryLimit(memory, candidates, 100.0), solve)
    with pytest.raises(OptionError, match="greater than 0"):
        MemoryLimit(memory, candidates, 0.0)


def test_the_arena_of_a_residual_block_holds_three_maps() -> None:
    traced = bh.trace(tiny(), example())
    network = network_of(traced, Plan({}))
    one = 4 * 32 * 8 * 16
    assert alive(network) == 3 * one  # conv2 reads the inner map and, to add it while it writes its own output, the residual
    assert plan_memory([["a", "b"], ["b", "c"]], {"a": 8, "b": 8, "c": 8}, [])[1] == 2 * 256
