"""The memory that a build plans for its values: asked for without kernels, it is what the build with them has."""

from pathlib import Path

import pytest
import torch
from tiny import example, tiny

import billhook as bh
from billhook.codegen import lower
from billhook.codegen.build import network_module
from billhook.codegen.host import host_target
from billhook.codegen.memory_plan import activation_bytes, allocated_bytes
from billhook.compiler.engine import Engine
from billhook.compiler.memory import MemoryRule
from billhook.compiler.weights import network_weight_bytes
from billhook.costmodel.partition import partition
from billhook.costmodel.static_cost import Roofline, static_tables
from billhook.ir.errors import OptionError
from billhook.ir.memory import tensor_bytes
from billhook.ir.network import Network
from billhook.ir.plan import Plan
from billhook.ir.progress import no_progress
from billhook.ir.workload import Workload
from billhook.options import parse_memory
from billhook.passes.allocate import solve
from billhook.passes.allocation_task import network_kernels
from billhook.passes.candidate_sizes import candidate_sizes
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.saliency import retained
from billhook.passes.saliency_criteria import score_axes
from billhook.passes.width_problem import plan_of, width_problem

TARGET = host_target(1)


def network_of(model: torch.nn.Module, given: torch.Tensor) -> Network:
    program = bh.trace(model, given)
    return partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), TARGET).network


def first_candidate(workload: Workload) -> lower.Candidate:
    return lower.candidates(workload, TARGET)[0]


@pytest.mark.parametrize("size", [(8, 16), (5, 7)])
def test_the_outline_plans_what_the_build_does(size: tuple[int, int]) -> None:
    network = network_of(tiny(), torch.randn(1, 1, *size))
    choices = {k.workload: first_candidate(k.workload) for k in network.kernels}
    planned = activation_bytes(network)
    assert planned == allocated_bytes(network_module(network, choices, TARGET))
    largest = max(tensor_bytes(k.workload.output) for k in network.kernels)
    assert 2 * largest <= planned <= sum(tensor_bytes(k.workload.output) for k in network.kernels)


def test_the_planner_has_the_last_word(tmp_path: Path) -> None:
    program = bh.trace(tiny(), example())
    candidates = dict(candidate_sizes(program, TARGET))
    (costs,) = static_tables(network_kernels(program, candidates, TARGET), candidates, Roofline())
    scores = score_axes("l2", program, tiny(), None)
    problem = width_problem(program, {n: retained(s) for n, s in scores.items()}, candidates, costs)
    with Engine(TARGET, tmp_path / "m.sqlite", no_progress) as engine:
        for share in ("40%", "65%", "80%"):
            rule = MemoryRule(engine, program, scores, candidates, parse_memory(share))
            found = rule(problem, 1e9)
            network = network_of(bh.prune(program, plan_of(program, scores, found.sizes)).model, example())
            told = rule.report(network)
            assert told.planned == rule.planned(found.sizes) <= told.limit
            assert told.limit == pytest.approx(float(share.rstrip("%")) / 100 * told.dense)
            loose = solve(problem, 1e9)
            assert found.value < loose.value  # the limit binds
            assert found.value <= found.bound <= loose.bound * (1 + 1e-9)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels are measured once for all compilations here."""
    return tmp_path_factory.mktemp("measured") / "m.sqlite"


def test_a_compilation_keeps_the_limit(database: Path) -> None:
    result = bh.compile(tiny(), example(), latency="90%", memory="60%", database=database, peers=())
    assert result.memory is not None
    assert result.memory.planned <= result.memory.limit == 0.6 * result.memory.dense
    assert result.memory.planned == activation_bytes(result.build.network)
    assert str(result.memory) in result.record().notes
    assert result.fitted.solution.gap >= 0


def test_presets_keep_no_such_limit() -> None:
    with pytest.raises(OptionError, match="preset halp keeps no limit but the latency"):
        bh.compile(tiny(), example(), preset="halp", criterion="l2", memory="60%")


def test_least_latency_that_retains_a_floor_within_all_limits(database: Path) -> None:
    """One call with an objective, its floor, and limits on memory and weights, each kept in what was built."""
    result = bh.compile(*(tiny(), example()), objective="latency", retain="70%", memory="90%", weights="80%", database=database, peers=())
    assert result.attained is not None
    assert result.memory is not None
    assert result.weights is not None
    assert 0.7 - 1e-9 <= result.attained.share < 1
    assert result.attained.gap <= 2e-3
    assert result.memory.planned <= result.memory.limit
    assert result.weights.taken <= result.weights.limit == 0.8 * result.weights.dense
    assert result.weights.taken == network_weight_bytes(result.build.network)
    record = result.record()
    assert record.certificate == str(result.attained)
    assert str(result.weights) in record.notes


def test_least_memory_that_retains_a_floor(database: Path) -> None:
    result = bh.compile(tiny(), example(), objective="memory", retain="50%", latency="95%", database=database, peers=())
    assert result.attained is not None
    assert result.attained.share >= 0.5 - 1e-9
    assert result.attained.gap <= 2e-3
    assert result.memory is not None
    assert result.attained.amount <= result.memory.planned < result.memory.dense
    assert result.record().certificate == str(result.attained)
