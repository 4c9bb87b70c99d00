"""Fused projections: a kernel over heads * (query ++ key ++ value) costs what its total width costs, and the solver chooses each part."""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from allocation_cases import brute_force
from synthetic_kernels import CountingMeasure
from torch import nn
from torch.nn import functional as F

from billhook.costmodel.extents import extent, extent_polynomial
from billhook.costmodel.family import Coordinate, Family, width, widths_at
from billhook.costmodel.measured import MeasuredCosts
from billhook.costmodel.network_cost import Kernel, NetworkCost
from billhook.costmodel.partition import partition
from billhook.costmodel.sample import Conditions
from billhook.costmodel.store import open_store
from billhook.costmodel.width_family import kernels_of
from billhook.costmodel.widths import BATCH, WidthModel
from billhook.costmodel.work import kernel_bytes, kernel_flops
from billhook.ir.capture import capture
from billhook.ir.dims import Concat, Dim, Leaf, Product
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.target import Target
from billhook.ir.workload import Workload
from billhook.passes.allocate import Problem, SumFactor, evaluate, solve
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.width_problem import width_problem

EMBED, HEADS, PER_HEAD, HIDDEN, TOKENS = 32, 3, 16, 40, 5
Choices = dict[str, tuple[int, ...]]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(EMBED), nn.LayerNorm(EMBED)
        self.qkv, self.proj = nn.Linear(EMBED, 3 * HEADS * PER_HEAD), nn.Linear(HEADS * PER_HEAD, EMBED)
        self.up, self.down = nn.Linear(EMBED, HIDDEN), nn.Linear(HIDDEN, EMBED)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, HEADS, PER_HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, HEADS * PER_HEAD)
        x = x + self.proj(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


@cache
def program() -> Program:
    torch.default_generator.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, EMBED), Block(), Block(), nn.Linear(EMBED, 4)).eval()
    return run_passes(capture(model, (torch.randn(2, TOKENS, 8),)), ANALYSIS)[0]


@cache
def kernels() -> tuple[WidthModel, tuple[Kernel, ...]]:
    target, dense = Target(), cut_graph(program(), Plan({}))
    model = WidthModel(program(), partition(normalise_for_inference(dense, program().example), target))
    return model, kernels_of(model, target, {BATCH: 2}, [n for n, sizes in choices().items() if 0 in sizes])


def choices() -> Choices:
    """Two or three sizes of every axis; heads, value width and neurons may get 0."""
    known = {HEADS: (0, 1, 3), HIDDEN: (0, 24, 40), EMBED: (16, 24, 32)}
    found: Choices = {}
    for axis in program().axes:
        part = (0, 8, 16) if axis.name.endswith(".2") else (8, 16)
        found[axis.name] = (known.get(axis.size, part)) if axis.prunable else (axis.size,)
    return found


def fused(number: int) -> tuple[str, str, str]:
    """Axes of a block's heads, query and key width, value width."""
    return f"{number}.qkv.out.0", f"{number}.qkv.out.1", f"{number}.qkv.out.2"


def seconds(workload: Workload) -> float:
    return 1e-6 + kernel_flops(workload) / 5e10 + kernel_bytes(workload) / 6e10


@pytest.fixture
def cost(tmp_path: Path) -> Iterator[NetworkCost]:
    with open_store(tmp_path / "samples.db") as store:
        costs = MeasuredCosts(store, CountingMeasure(seconds), Conditions("machine", "level"))
        yield NetworkCost(kernels()[1], choices(), costs, kernel_flops)


def problem_of(cost: NetworkCost, candidates: Mapping[str, tuple[int, ...]]) -> Problem:
    rng = Random(1)
    worth = {a.name: torch.tensor([rng.random() for _ in range(a.size + 1)]).cumsum(0).double().numpy() for a in program().axes}
    return width_problem(program(), worth, candidates, cost.tables(candidates))


H, A, V = Leaf("h", 3), Leaf("a", 4), Leaf("v", 5)
QK, HV = Product((H, A), 12), Product((H, V), 15)


@pytest.mark.parametrize(
    ("dim", "form"),
    [
        (Concat((QK, QK, HV), 39), (Coordinate((("h",), ("a", "a", "v"))), 1, 0)),
        (Product((Leaf(None, 3), H, A), 36), (Coordinate((("a",), ("h",))), 3, 0)),
        (Concat((A, V, Leaf(None, 2)), 11), (width("a", "v"), 1, 2)),
        (Product((Concat((A, V), 9), Leaf(None, 49)), 441), (width("a", "v"), 49, 0)),
        (Concat((QK, HV, Leaf(None, 2)), 29), None),
        (Concat((QK, V), 17), None),
        (Leaf("fixed", 7), None),
    ],
)
def test_extents_as_products_of_sums(dim: Dim, form: tuple[Coordinate, int, int] | None) -> None:
    found = extent(extent_polynomial(dim, {"h", "a", "v"}, {}))
    assert (found and (found.coordinate, found.scale, found.constant)) == form
    if found is not None:
        assert found.dim("x", {"h": 3, "a": 4, "v": 5}).size == dim.size


def test_a_coordinate_reaches_every_width_that_its_axes_allow() -> None:
    coordinate = Coordinate((("h",), ("a", "a", "v")), ("v",))
    sizes = {"h": (1, 3), "a": (8, 16), "v": (0, 8)}
    values = {coordinate.at(dict(zip("hav", s, strict=True))) for s in product(*sizes.values())}
    assert values == {0, 24, 40, 72, 120}
    assert values <= set(coordinate.reach(sizes)) == values | {16, 32, 48, 96}, "sums with and without the part that is needed"


def test_a_fused_projection_has_two_coordinates_and_every_kernel_is_exact() -> None:
    model, found = kernels()
    h, a, v = fused(1)
    coordinates = {k.name: k.family.coordinates for k in found}
    wide = [c for cs in coordinates.values() for c in cs if set(c.axes) == {h, a, v}]
    assert wide == [Coordinate(((h,), (a, a, v)), (v,))]
    assert all(len(cs) <= 3 for cs in coordinates.values())
    rng = Random(0)
    for _ in range(30):
        sizes = {n: rng.choice(s) for n, s in choices().items()}
        for kernel, shaped in zip(found, model.kernels, strict=True):
            family: Family = kernel.family
            assert family.workload(widths_at(family.coordinates, sizes)) == shaped.at({**sizes, BATCH: 2}), (kernel.name, sizes)


@pytest.mark.parametrize("fixed", [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_the_problem_costs_what_the_network_costs(cost: NetworkCost, fixed: tuple[int, ...]) -> None:
    """fixed: which of heads, query and value width of the first block have no choice."""
    candidates = {**choices(), **{fused(1)[i]: (choices()[fused(1)[i]][-1],) for i in fixed}}
    problem, rng = problem_of(cost, candidates), Random(2)
    assert any(isinstance(f, SumFactor) and f.needs for f in problem.factors)
    for _ in range(20):
        sizes = {n: rng.choice(s) for n, s in candidates.items()}
        chosen = {n: s for n, s in sizes.items() if n in problem.variables}
        assert evaluate(problem, chosen).seconds == pytest.approx(cost.predict(sizes).seconds, rel=1e-9)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.85])
def test_the_solver_finds_the_best_of_all_plans(cost: NetworkCost, share: float) -> None:
    problem = problem_of(cost, choices())
    plans = brute_force(problem)
    budget = plans.fastest() + share * (float(plans.seconds.max()) - plans.fastest())
    found = solve(problem, budget, gap=0.0)
    assert found.seconds <= budget
    assert found.value == pytest.approx(plans.best(budget), rel=1e-6)
