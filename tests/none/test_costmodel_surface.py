"""Latency surfaces against a machine whose latencies are known."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_kernels import ConvFamily, CountingMeasure, FixedFamily, SquareFamily, conv, conv_flops, true_seconds

from billhook.costmodel.emulator import describe, emulate
from billhook.costmodel.family import width
from billhook.costmodel.kriging import Field, Points, design, interpolate
from billhook.costmodel.law import fit_law
from billhook.costmodel.measured import MeasuredCosts
from billhook.costmodel.sample import Conditions
from billhook.costmodel.store import open_store
from billhook.costmodel.surface import ANCHORS, Surface
from billhook.ir.errors import MeasureError, OptionError
from billhook.ir.latency import Latency
from billhook.ir.workload import Call, Ref, TensorType, Workload

GRID = tuple(range(8, 129, 8))
MakeCosts = Callable[[CountingMeasure], MeasuredCosts]


@pytest.fixture
def costs(tmp_path: Path) -> Iterator[MakeCosts]:
    with open_store(tmp_path / "samples.db") as store:
        yield lambda measure: MeasuredCosts(store, measure, Conditions("machine", "level"))


def surface(costs: MakeCosts, measure: CountingMeasure, family: ConvFamily | None = None) -> Surface:
    return Surface(family or ConvFamily(), (GRID, GRID), costs(measure), conv_flops)


def errors(found: Surface, truth: Callable[[Workload], float] = true_seconds) -> np.ndarray:
    expected = np.array([[truth(conv(ci, co)) for co in GRID] for ci in GRID])
    return np.abs(found.table((GRID, GRID)) / expected - 1)


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("pixels_taps", [(28, 3), (28, 1), (7, 3), (14, 1)])
def test_six_anchors_predict_256_kernels_to_a_few_percent(costs: MakeCosts, noise: float, pixels_taps: tuple[int, int]) -> None:
    measure = CountingMeasure(noise=noise)
    pixels, taps = pixels_taps
    found = surface(costs, measure, ConvFamily(pixels=pixels, taps=taps))
    table = found.table((GRID, GRID))
    expected = np.array([[true_seconds(conv(ci, co, pixels, taps)) for co in GRID] for ci in GRID])
    relative = np.abs(table / expected - 1)
    assert len(measure.asked) == ANCHORS[2] == 6
    assert relative.mean() < 0.04
    assert np.abs(table - expected).sum() / expected.sum() < 0.025, "error weighted by time"
    assert relative[expected > expected.max() / 10].max() < 0.15


def test_more_anchors_predict_better(costs: MakeCosts) -> None:
    means: list[float] = []
    for count in (3, 6, 12):
        found = surface(costs, CountingMeasure())
        found.prepare(count)
        means.append(float(errors(found).mean()))
    assert means[0] > means[1] > means[2]
    assert means[2] < 0.012


def test_the_interval_contains_the_truth_nearly_always(costs: MakeCosts) -> None:
    found = surface(costs, CountingMeasure(noise=0.005))
    truth = {w: true_seconds(conv(*w)) for w in product(GRID, GRID)}
    inside = [found.at(w).low <= t * 1.005 and t * 0.995 <= found.at(w).high for w, t in truth.items()]
    assert np.mean(inside) > 0.85


def test_measured_kernels_keep_their_latency_and_the_others_say_that_they_are_predicted(costs: MakeCosts) -> None:
    found = surface(costs, CountingMeasure(noise=0.02))
    found.prepare()
    for widths, sample in found.measured.items():
        assert found.at(widths) == sample.latency
        assert found.at(widths).provenance == "host"
    assert found.at((72, 104)).provenance == "predicted"


def test_widths_within_a_step_cost_the_same(costs: MakeCosts) -> None:
    found = surface(costs, CountingMeasure())
    same = [found.at((w, 64)).seconds for w in range(33, 41)]
    assert len(set(same)) == 1
    assert found.at((41, 64)).seconds > same[0]


def test_a_width_that_is_no_multiple_is_rounded_up_but_not_beyond_the_dense_kernel(costs: MakeCosts) -> None:
    measure = CountingMeasure()
    found = Surface(ConvFamily(), ((16, 32, 61), (64,)), costs(measure), conv_flops)
    assert found.rounded((57, 64)) == (61, 64)
    assert found.rounded((30, 64)) == (32, 64)
    found.prepare()
    assert conv(61, 64) in measure.asked
    assert max(w.inputs[0].shape[1] for w in measure.asked) == 61


def test_uncertainty_grows_with_the_distance_from_what_was_measured_and_shrinks_by_measuring(costs: MakeCosts) -> None:
    found = surface(costs, CountingMeasure())

    def spread(widths: tuple[int, int]) -> float:
        latency = found.at(widths)
        return (latency.high - latency.low) / latency.seconds

    found.prepare(3)
    middle = [w for w in product(GRID, GRID) if w not in found.measured]
    worst = max(middle, key=spread)
    before = spread(worst)
    found.refine([worst])
    assert spread(worst) < before / 3 + 0.02
    near = min(middle, key=lambda w: abs(w[0] - worst[0]) + abs(w[1] - worst[1]) if w != worst else 999)
    assert spread(near) < before


@given(st.lists(st.floats(0, 6), min_size=2, max_size=8, unique=True), st.floats(0.03, 0.4))
def test_kriging_is_exact_without_noise_and_its_uncertainty_rises_away_from_a_point(places: list[float], deviation: float) -> None:
    observed = Points(np.array(places)[:, None], np.zeros((len(places), 1), dtype=np.intp))
    if np.diff(np.sort(places)).min() < 0.05:
        return
    values = np.sin(np.array(places)) * deviation
    found = interpolate(observed, values, np.full(len(places), 1e-6))
    again, uncertain = found.predict(observed)
    assert again == pytest.approx(values, abs=1e-4)
    assert uncertain.max() < 1e-3
    outside = Points(max(places) + np.linspace(0.1, 4, 20)[:, None], np.zeros((20, 1), dtype=np.intp))
    assert (np.diff(found.predict(outside)[1]) > -1e-9).all()


def test_kernels_of_another_block_width_are_less_related() -> None:
    points = Points(np.zeros((3, 1)), np.array([[16], [16], [8]], dtype=np.intp))
    covariance = Field().covariance(points, points)
    assert covariance[0, 1] == covariance[0, 0] > covariance[0, 2] > 0


def test_the_design_takes_what_is_least_known_and_never_a_point_twice() -> None:
    line = Points(np.arange(9.0)[:, None], np.zeros((9, 1), dtype=np.intp))
    assert design(line, np.ones(9), [8, 0], 3) == [8, 0, 4]
    assert sorted(design(line, np.ones(9), [8, 0], 99)) == list(range(9))
    assert design(line, np.array([0, 0, 0, 0, 0, 0, 1, 1, 1.0]), [8, 0], 3) == [8, 0, 6]


@given(st.floats(0, 1e-5), st.floats(1e-12, 1e-10), st.floats(0, 1e-10))
def test_the_law_recovers_its_own_constants(overhead: float, per_flop: float, per_byte: float) -> None:
    generator = np.random.default_rng(0)
    work = generator.uniform(1e5, 1e7, size=(12, 2))
    seconds = overhead + work @ np.array([per_flop, per_byte])
    law = fit_law(work, seconds, np.full(12, 0.01))
    assert law.seconds(work) == pytest.approx(seconds, rel=1e-3)
    assert (law.coefficients >= 0).all()
    assert (law.bound(work) <= seconds * (1 + 1e-9)).all()


def test_no_prediction_beats_the_best_rates_of_the_family() -> None:
    workloads = [conv(ci, 64) for ci in GRID]
    kernels = describe([(ci,) for ci in GRID], workloads, conv_flops)
    some = [0, 5, 15]
    chosen = describe([(GRID[i],) for i in some], [workloads[i] for i in some], conv_flops)
    latencies = [Latency(t, t, t) for t in (true_seconds(workloads[i]) for i in some)]
    seconds, low, _ = emulate(chosen, latencies).predict(kernels)
    rates = kernels.work / seconds[:, None]
    best = (chosen.work / np.array([x.seconds for x in latencies])[:, None]).max(axis=0)
    assert (rates <= best * (1 + 1e-9)).all()
    assert (low <= seconds).all()


def test_refining_moves_the_neighbours_by_the_same_ratio(costs: MakeCosts) -> None:
    slow = 1.4

    def truth(workload: Workload) -> float:
        ci, co = workload.inputs[0].shape[1], workload.output.shape[1]
        return true_seconds(workload) * (slow if 64 <= ci <= 80 and 64 <= co <= 80 else 1.0)

    found = surface(costs, CountingMeasure(truth=truth))
    found.prepare()
    untouched = [w for w in ((72, 72), (64, 80)) if w not in found.measured]
    before = [found.at(w).seconds for w in untouched]
    found.refine([(72, 64), (80, 72)])
    assert found.at((72, 64)).seconds == truth(conv(72, 64))
    after = [found.at(w).seconds for w in untouched]
    assert all(a > 1.1 * b for a, b in zip(after, before, strict=True))


def test_kernels_that_vanish_cost_nothing_and_are_never_measured(costs: MakeCosts) -> None:
    measure = CountingMeasure()
    found = Surface(ConvFamily(), ((0, 16, 32), (0, 16, 32)), costs(measure), conv_flops)
    table = found.table(((0, 16, 32), (0, 16, 32)))
    assert not table[0].any()
    assert not table[:, 0].any()
    assert (table[1:, 1:] > 0).all()
    assert found.at((0, 16)) == Latency(0, 0, 0, "predicted")


def test_a_concatenation_goes_on_without_an_input_that_vanished(costs: MakeCosts) -> None:
    class Joining:
        coordinates = (width("a"), width("b"))
        steps = (8, 8)

        def workload(self, widths: tuple[int, ...], /) -> Workload | None:
            parts = tuple(TensorType((1, w, 14, 14)) for w in widths if w)
            call = Call("aten.cat.default", (tuple(Ref(i) for i in range(len(parts))), 1))
            return Workload(parts, ("activation",) * len(parts), (call,), TensorType((1, sum(widths), 14, 14))) if parts else None

    def seconds(workload: Workload) -> float:
        return 2e-6 + 8e-10 * workload.output.elements * (1.0 if len(workload.inputs) == 2 else 0.5)

    grid = (0, 16, 32, 48, 64)
    found = Surface(Joining(), (grid, grid), costs(CountingMeasure(truth=seconds)), lambda w: float(w.output.elements))
    table = found.table((grid, grid))
    assert table[0, 0] == 0
    assert (table[0, 1:] > 0).all()
    found.refine([(0, 32), (0, 64)])
    assert found.at((0, 48)).seconds == pytest.approx(seconds(Joining().workload((0, 48)) or conv(8, 8)), rel=0.15)


def test_kernels_that_cannot_be_made_are_forbidden_not_guessed(costs: MakeCosts) -> None:
    measure = CountingMeasure(refuse=lambda w: w == conv(128, 128))
    found = surface(costs, measure)
    table = found.table((GRID, GRID))
    assert np.isinf(table[-1, -1])
    assert np.isfinite(table).sum() == table.size - 1
    with pytest.raises(MeasureError, match="no template covers it"):
        found.at((128, 128))
    nothing = surface(costs, CountingMeasure(refuse=lambda _: True), ConvFamily(pixels=7))
    with pytest.raises(MeasureError, match="no template covers it"):
        nothing.table((GRID, GRID))


def test_padding_up_is_reported_where_a_larger_kernel_is_certainly_faster(costs: MakeCosts) -> None:
    def truth(workload: Workload) -> float:
        return true_seconds(workload) * (1.5 if workload.output.shape[1] == 40 else 1.0)

    found = surface(costs, CountingMeasure(truth=truth))
    found.refine([(64, 40), (64, 48)])
    grid = ((64,), (32, 40, 48))
    (padding,) = found.paddings(grid)
    assert (padding.widths, padding.to) == ((64, 40), (64, 48))
    plain, padded = found.table(grid), found.table(grid, pad_up=True)
    assert plain[0, 1] > plain[0, 2]
    assert padded[0, 1] == pytest.approx(plain[0, 2])
    assert padding.saving == pytest.approx(plain[0, 1] - plain[0, 2])


def test_families_of_no_and_of_one_width(costs: MakeCosts) -> None:
    measure = CountingMeasure()
    fixed = Surface(FixedFamily(), (), costs(measure), conv_flops)
    assert fixed.at(()).seconds == fixed.table(()).item() == true_seconds(conv(16, 16, 7, 1))
    line = Surface(SquareFamily(), (GRID,), costs(measure), conv_flops)
    expected = np.array([true_seconds(conv(c, c)) for c in GRID])
    assert np.abs(line.table((GRID,)) / expected - 1).max() < 0.1
    assert len(measure.asked) == 1 + ANCHORS[1]


def test_surfaces_share_kernels_through_the_store_and_a_second_run_measures_nothing(costs: MakeCosts) -> None:
    first, second = CountingMeasure(), CountingMeasure()
    tables = [surface(costs, m).table((GRID, GRID)) for m in (first, second)]
    assert (tables[0] == tables[1]).all()
    assert second.asked == []


def test_a_surface_checks_its_candidates(costs: MakeCosts) -> None:
    with pytest.raises(OptionError, match="candidate widths"):
        Surface(ConvFamily(), (GRID,), costs(CountingMeasure()), conv_flops)
    with pytest.raises(OptionError, match="candidate widths"):
        Surface(ConvFamily(), (GRID, ()), costs(CountingMeasure()), conv_flops)
