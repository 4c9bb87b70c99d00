"""The report is one file that needs nothing else, shows every part of the record, and escapes what it shows."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_record import synthetic_record

from billhook.ir.errors import OptionError
from billhook.report import parse_record, render, to_html

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}
MINIMAL = (
    "budget_s",
    "measured_s",
    "predicted_s",
    "dense_s",
    "pruned_s",
    "allocation_gap",
    "seconds_total",
    "peak_rss_bytes",
    "versions",
)


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


def html_of(**changes: Any) -> str:
    return to_html(parse_record(synthetic_record() | changes))


def test_fetches_nothing_and_runs_nothing() -> None:
    html = html_of()
    assert not re.search(r"(https?:)?//[a-z]", html)
    assert not re.search(r"url\((?!#)", html)
    page = parse(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    assert not [a for _, attributes in page.tags for a in attributes if a in ("src", "href") or a.startswith("on")]


def test_has_every_section_of_a_full_record() -> None:
    page = parse(html_of())
    ids = {a["id"] for tag, a in page.tags if tag == "section"}
    assert ids == {"latency", "front", "axes", "frozen", "kernels", "accuracy", "checks", "stages", "facts"}


def test_shows_the_numbers_that_matter() -> None:
    text = parse(html_of()).text
    for shown in ("Budget met", "11.8 ms", "5.81 ms", "5.92 ms", "5.69 ms", "94.40%", "0.031%", "4 min 47 s", "torch.compile", "2.04 GiB"):
        assert shown in text
    assert "a program output (node linear)" in text


def test_a_minimal_record_has_no_empty_sections() -> None:
    full = synthetic_record()
    page = parse(to_html(parse_record({key: full[key] for key in MINIMAL})))
    assert {a["id"] for tag, a in page.tags if tag == "section"} == {"latency", "facts"}


def test_a_missed_budget_is_not_dressed_up() -> None:
    text = parse(html_of(measured_s=0.0071)).text
    assert "Budget missed" in text
    assert "+19.9%" in text
    assert "Budget met" not in text


def test_names_are_escaped() -> None:
    html = html_of(model="<script>alert(1)</script>", axes=[{"name": 'a"><b>', "size": 4, "kept": 2}])
    assert "<script" not in html
    assert 'a"><b>' not in html


def test_every_axis_is_drawn_in_proportion() -> None:
    page = parse(html_of(axes=[{"name": "wide", "size": 200, "kept": 50}, {"name": "gone", "size": 100, "kept": 0}]))
    labels = {a.get("aria-label") for tag, a in page.tags if tag == "svg"}
    assert {"wide keeps 50 of 200", "gone keeps 0 of 100"} <= labels
    widths = [a["width"] for tag, a in page.tags if tag == "rect" and a.get("height") == "9"]
    assert widths == ["100.0%", "100.0%", "25.0%", "50.0%", "50.0%", "0.0%"]


def test_many_axes_and_kernels_fold_away() -> None:
    axes = [{"name": f"axis{i}", "size": 8, "kept": 4} for i in range(60)]
    text = parse(html_of(axes=axes)).text
    assert "12 more axes" in text
    assert "12 more kernels" in text


def test_kernels_stand_against_the_roofline() -> None:
    kernels = [
        {"name": "first", "predicted_s": 3e-3, "measured_s": 3e-3, "gflops": 90.0, "gbytes": 2.0},
        {"name": "second", "predicted_s": 1e-3, "measured_s": 1e-3, "gflops": 1.0, "gbytes": 5.5},
    ]
    text = " ".join(parse(html_of(kernels=kernels, peak_gflops=120.0, peak_gbytes=10.0)).text.split())
    assert "75% operations" in text  # 90 of 120, and only 2 of 10
    assert "55% memory" in text
    assert "70% of the nearer bound" in text  # (3 * 75% + 1 * 55%) / 4
    unknown = parse(html_of(kernels=kernels, peak_gflops=None, peak_gbytes=None)).text
    assert "Roofline" not in unknown
    assert "operations" not in unknown


def test_render_writes_one_whole_file(tmp_path: Path) -> None:
    render(synthetic_record(), tmp_path / "new" / "report.html")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]


def test_render_refuses_what_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="budget_s: Field required"):
        render({"measured_s": 1.0}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
