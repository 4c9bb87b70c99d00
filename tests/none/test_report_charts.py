"""Scales, number formats and chart geometry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_record import synthetic_record

from billhook.report import parse_record
from billhook.report.charts import front_chart, kernel_chart
from billhook.report.format import amount, percent, plain_seconds, seconds, signed_percent, significant, size
from billhook.report.scale import Scale, spanning
from billhook.report.views import frozen_rows, runtime_rows

positive = st.floats(1e-9, 1e9)


@given(st.lists(positive, min_size=1), st.booleans())
def test_a_scale_holds_all_values_and_its_ticks_are_inside(values: list[float], log: bool) -> None:
    scale = spanning(values, 0.0, 100.0, log=log)
    assert all(0 <= scale(value) <= 100 for value in values)
    ticks = scale.ticks()
    assert all(scale.low * (1 - 1e-9) <= tick <= scale.high * (1 + 1e-9) for tick in ticks)
    assert ticks == sorted(ticks)
    assert len(ticks) <= 14


def test_ticks_are_round() -> None:
    assert Scale(0, 1, 0, 1).ticks(5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(2e-5, 3e-4, 0, 1, log=True).ticks() == pytest.approx([2e-5, 5e-5, 1e-4, 2e-4])


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (seconds(3.456e-6), "3.46 µs"),
        (seconds(0.0118), "11.8 ms"),
        (seconds(0.9996), "1.00 s"),
        (seconds(61.2), "61.2 s"),
        (seconds(287.3), "4 min 47 s"),
        (plain_seconds(0.002), "2 ms"),
        (significant(1234.5), "1,230"),
        (significant(0.00123), "0.00123"),
        (significant(0), "0"),
        (percent(0.5), "50.0%"),
        (signed_percent(-0.019), "−1.9%"),
        (size(2_190_000_000), "2.04 GiB"),
        (amount(741_000), "741K"),
        (amount(512), "512"),
    ],
)
def test_formats(shown: str, expected: str) -> None:
    assert shown == expected


def test_the_front_rises_and_marks_one_point() -> None:
    chart = front_chart(parse_record(synthetic_record()))
    assert chart is not None
    xs, ys = [d.x for d in chart.dots], [d.y for d in chart.dots]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert sum(d.chosen for d in chart.dots) == 1
    assert chart.budget_x is not None
    assert chart.left <= chart.budget_x <= chart.right


def test_no_chart_of_nothing() -> None:
    assert front_chart(parse_record(synthetic_record() | {"front": []})) is None
    assert kernel_chart(()) is None


def test_an_exact_prediction_lies_on_the_diagonal() -> None:
    kernels = [{"name": "k", "predicted_s": s, "measured_s": s} for s in (1e-5, 1e-4, 1e-3)]
    chart = kernel_chart(parse_record(synthetic_record() | {"kernels": kernels}).kernels)
    assert chart is not None
    assert chart.diagonal is not None
    x1, y1, x2, y2 = chart.diagonal
    for dot in chart.dots:
        assert (dot.x - x1) / (x2 - x1) == pytest.approx((dot.y - y1) / (y2 - y1), abs=1e-3)


def test_our_runtime_comes_first_and_bars_share_one_scale() -> None:
    rows, budget_at = runtime_rows(parse_record(synthetic_record() | {"pruned_s": {"billhook": 0.0058}}))
    assert [r.name for r in rows][:2] == ["billhook", "openvino"]
    assert rows[0].ours
    assert rows[1].pruned is None
    assert rows[0].dense is not None
    assert budget_at / rows[0].dense.length == pytest.approx(0.00592 / 0.01184, rel=1e-3)


def test_frozen_axes_are_grouped_by_reason() -> None:
    axes = [{"name": f"a{i}", "size": 2, "kept": 2, "prunable": False, "frozen_because": "x" if i else "y"} for i in range(3)]
    rows = frozen_rows(parse_record(synthetic_record() | {"axes": axes}).axes)
    assert [(r.why, r.names) for r in rows] == [("x", ("a1", "a2")), ("y", ("a0",))]
