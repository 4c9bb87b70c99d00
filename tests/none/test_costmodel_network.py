"""The latency of whole networks: sums, shared surfaces, tables for the solver, refinement, resuming."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from synthetic_kernels import ConvFamily, CountingMeasure, FixedFamily, SquareFamily, conv, conv_flops, true_seconds

from billhook.costmodel.calibration import Calibration
from billhook.costmodel.family import width
from billhook.costmodel.measured import MeasuredCosts
from billhook.costmodel.network_cost import CostTables, Kernel, NetworkCost, Overhead
from billhook.costmodel.sample import Conditions
from billhook.costmodel.store import open_store
from billhook.ir.errors import AxisError, MeasureError
from billhook.ir.latency import Latency

SIZES = (16, 32, 48, 64)
CANDIDATES: Mapping[str, tuple[int, ...]] = {"a": SIZES, "b": (0, *SIZES), "c": SIZES, "d": (24,)}
DISPATCH = Latency(1e-6, 0.5e-6, 2e-6)
KERNELS = (
    Kernel("stem", FixedFamily()),
    Kernel("first", ConvFamily(("a",), ("b",))),
    Kernel("second", ConvFamily(("b",), ("c",))),
    Kernel("square", SquareFamily("c")),
    Kernel("joined", ConvFamily(("a", "b", "c"), ("a",))),
    Kernel("last", ConvFamily(("a",), ("d",))),
)
DENSE = {name: sizes[-1] for name, sizes in CANDIDATES.items()}
Make = Callable[[CountingMeasure], NetworkCost]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with open_store(tmp_path / "samples.db") as store:

        def network(measure: CountingMeasure) -> NetworkCost:
            overhead = Overhead(DISPATCH, Latency(5e-6, 4e-6, 6e-6))
            return NetworkCost(KERNELS, CANDIDATES, MeasuredCosts(store, measure, Conditions("machine", "level")), conv_flops, overhead)

        yield network


def true_network(sizes: Mapping[str, int]) -> float:
    a, b, c, d = (sizes[n] for n in "abcd")
    kernels = [conv(16, 16, 7, 1), conv(a, b) if b else None, conv(b, c) if b else None, conv(c, c), conv(a + b + c, a), conv(a, d)]
    return 5e-6 + sum(true_seconds(k) + DISPATCH.seconds for k in kernels if k)


def seconds_of(tables: CostTables, sizes: Mapping[str, int]) -> float:
    """What a solver adds up."""
    total = tables.constant
    for table in tables.tables:
        widths = [c.at(sizes) for c in table.coordinates]
        total += float(table.seconds[tuple(np.searchsorted(w, x) for w, x in zip(table.widths, widths, strict=True))])
    return total


def test_the_network_is_the_sum_of_its_kernels(make: Make) -> None:
    cost = make(CountingMeasure())
    for sizes in (DENSE, {"a": 32, "b": 48, "c": 16, "d": 24}, {"a": 64, "b": 0, "c": 32, "d": 24}):
        predicted = cost.predict(sizes)
        assert predicted.seconds == pytest.approx(true_network(sizes), rel=0.05)
        assert predicted.low <= true_network(sizes) <= predicted.high
        assert predicted.provenance == "predicted"
    assert [name for name, _ in cost.breakdown(DENSE)] == [k.name for k in KERNELS]
    assert [name for name, _ in cost.breakdown({**DENSE, "b": 0})] == ["stem", "square", "joined", "last"]


def test_tables_and_predictions_agree_at_every_choice(make: Make) -> None:
    cost = make(CountingMeasure(noise=0.01))
    calibration = Calibration(1.1, 2e-6, 0.01)
    tables = cost.tables(CANDIDATES, calibration)
    for a, b, c in product(*(CANDIDATES[n] for n in "abc")):
        sizes = {"a": a, "b": b, "c": c, "d": 24}
        assert seconds_of(tables, sizes) == pytest.approx(calibration.apply(cost.predict(sizes)).seconds, rel=1e-9)


def test_tables_have_sums_first_and_no_axis_without_a_choice(make: Make) -> None:
    tables = {t.name: t for t in make(CountingMeasure()).tables(CANDIDATES).tables}
    assert set(tables) == {"first", "second", "square", "joined", "last"}
    assert tables["joined"].coordinates == (width("a", "b", "c"), width("a"))
    assert tables["joined"].widths == (tuple(range(32, 193, 16)), SIZES)
    assert tables["last"].coordinates == (width("a"),)
    assert tables["first"].seconds.shape == (4, 5)
    assert not tables["first"].seconds[:, 0].any(), "a kernel that vanished is not dispatched"


def test_a_sum_on_the_output_side_is_moved_to_the_front(tmp_path: Path) -> None:
    kernels = [Kernel("k", ConvFamily(("a",), ("b", "c")))]
    with open_store(tmp_path / "s.db") as store:
        cost = NetworkCost(kernels, CANDIDATES, MeasuredCosts(store, CountingMeasure(), Conditions("m", "l")), conv_flops)
        (table,) = cost.tables({"a": (16, 64), "b": (16, 32), "c": (32,)}).tables
    assert table.coordinates == (width("b", "c"), width("a"))
    assert table.widths == ((48, 64), (16, 64))
    assert table.seconds[1, 0] == pytest.approx(true_seconds(conv(16, 64)), rel=0.05)


def test_kernels_of_one_family_share_a_surface_whatever_their_axes_are_called(tmp_path: Path) -> None:
    measure = CountingMeasure()
    names = [(f"x{i}", f"x{i + 1}") for i in range(8)]
    kernels = [Kernel(f"k{i}", ConvFamily((a,), (b,))) for i, (a, b) in enumerate(names)]
    with open_store(tmp_path / "s.db") as store:
        costs = MeasuredCosts(store, measure, Conditions("m", "l"))
        cost = NetworkCost(kernels, dict.fromkeys((f"x{i}" for i in range(9)), SIZES), costs, conv_flops)
        cost.prepare()
    assert len(cost.surfaces) == 1
    assert len(measure.asked) == 6


def test_errors_of_a_shared_surface_add_up_and_independent_ones_average_out(tmp_path: Path) -> None:
    def spread(kernels: list[Kernel]) -> float:
        with open_store(tmp_path / f"{len(kernels)}{kernels[-1].family.coordinates}.db") as store:
            costs = MeasuredCosts(store, CountingMeasure(noise=0.05), Conditions("m", "l"))
            cost = NetworkCost(kernels, {"a": SIZES, "b": SIZES}, costs, conv_flops)
            latency = cost.predict({"a": 64, "b": 64})
        return (latency.high - latency.low) / latency.seconds

    alone = spread([Kernel("1", ConvFamily(("a",), ("b",)))])
    same = spread([Kernel(str(i), ConvFamily(("a",), ("b",))) for i in range(4)])
    different = spread([Kernel(str(i), ConvFamily(("a",), ("b",), pixels=28 + i)) for i in range(4)])
    assert same == pytest.approx(alone)
    assert different == pytest.approx(alone / 2, rel=0.1)


def test_refining_makes_the_chosen_plan_exact(make: Make) -> None:
    measure = CountingMeasure()
    cost = make(measure)
    cost.prepare()
    plan = {"a": 48, "b": 32, "c": 48, "d": 24}
    seen: list[tuple[str, int, int]] = []
    cost.refine([plan], lambda stage, done, total: seen.append((stage, done, total)))
    assert cost.predict(plan).seconds == pytest.approx(true_network(plan), rel=1e-12)
    assert all(latency.provenance == "host" for _, latency in cost.breakdown(plan))
    assert seen[-1] == ("measure chosen kernels", 6, 6)
    asked = len(measure.asked)
    cost.refine([plan, plan])
    assert len(measure.asked) == asked


def test_an_interrupted_preparation_resumes_and_a_second_run_measures_nothing(make: Make) -> None:
    plan = {"a": 32, "b": 48, "c": 32, "d": 24}
    whole = CountingMeasure()

    def stop(workload: object) -> bool:
        if len(interrupted.asked) > 7:
            raise KeyboardInterrupt
        return False

    interrupted = CountingMeasure(refuse=stop)
    with pytest.raises(KeyboardInterrupt):
        make(interrupted).prepare()
    resumed = make(whole)
    resumed.prepare()
    resumed.refine([plan])
    kept = interrupted.asked[:-1]
    assert len(kept) == 7
    assert not set(kept) & set(whole.asked)
    assert len(set(whole.asked)) == len(whole.asked)
    again = CountingMeasure()
    second = make(again)
    second.prepare()
    second.refine([plan])
    assert again.asked == []
    assert second.predict(plan) == resumed.predict(plan)


def test_kernels_that_take_little_time_get_few_anchors(tmp_path: Path) -> None:
    measure = CountingMeasure()
    kernels = [Kernel("large", ConvFamily(("a",), ("b",), pixels=112)), Kernel("small", ConvFamily(("a",), ("b",), pixels=1, taps=1))]
    with open_store(tmp_path / "s.db") as store:
        cost = NetworkCost(kernels, {"a": SIZES, "b": SIZES}, MeasuredCosts(store, measure, Conditions("m", "l")), conv_flops)
        cost.prepare()
    assert [len(s.measured) for s in cost.surfaces] == [6, 3]


def test_a_kernel_that_cannot_be_made_forbids_its_combinations(make: Make) -> None:
    cost = make(CountingMeasure(refuse=lambda w: w == conv(64, 64)))
    tables = {t.name: t for t in cost.tables(CANDIDATES).tables}
    assert np.isinf(tables["first"].seconds[-1, -1])
    assert np.isinf(tables["square"].seconds[-1])
    with pytest.raises(MeasureError, match="no template covers it"):
        cost.predict(DENSE)


def test_axes_without_sizes_are_named(make: Make) -> None:
    cost = make(CountingMeasure())
    with pytest.raises(AxisError, match="axis c has no size"):
        cost.predict({"a": 16, "b": 16, "d": 24})
    with pytest.raises(AxisError, match="axis c of kernel second"):
        cost.tables({"a": SIZES, "b": SIZES, "d": (24,)})
