"""The drawing of a program: what becomes a row, where lines run, and files that need nothing else."""

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from torch import nn

import billhook as bh
from billhook.drawing import draw, to_html, to_svg
from billhook.drawing.diagram import Diagram, diagram_of
from billhook.drawing.geometry import layout_of
from billhook.drawing.lanes import lanes_of
from billhook.drawing.palette import FROZEN, colours_of
from billhook.ir.errors import OptionError
from billhook.ir.program import Program

SVG = "{http://www.w3.org/2000/svg}"


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.b(self.norm(self.a(x)).relu())
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3 * (k + 1), 3) for k in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, -1)))
        return torch.cat(parts, -1)


def residual() -> Program:
    return bh.trace(Residual(), torch.randn(2, 3, 5, 5))


def told(diagram: Diagram) -> list[str]:
    """Rows as text: operators, and the rows that each reads."""
    sources = ([diagram.values[v].source for v in row.inputs] for row in diagram.rows)
    return [f"{'.'.join(n.name for n in row.nodes)} <- {s}" for row, s in zip(diagram.rows, sources, strict=True)]


def test_rows_are_operators_with_what_only_carries_on() -> None:
    assert told(diagram_of(residual())) == [
        "x <- []",
        "conv2d <- [0]",
        "conv2d_1.batch_norm.relu <- [1]",
        "conv2d_2 <- [2]",
        "add <- [1, 3]",
        "mean <- [4]",
        "linear <- [5]",
        "output <- [6]",
    ]


def test_a_chain_keeps_its_lane_and_a_skip_has_its_own() -> None:
    diagram = diagram_of(residual())
    lanes = lanes_of(diagram)
    assert lanes.rows == (0, 0, 1, 1, 0, 0, 0, 0)
    assert lanes.count == 2


def test_no_two_values_share_a_lane_at_once() -> None:
    diagram = diagram_of(bh.trace(Dense(9), torch.randn(2, 3)))
    lanes = lanes_of(diagram)
    for lane in range(lanes.count):
        spans = sorted((v.source, v.uses[-1]) for v, at in zip(diagram.values, lanes.values, strict=True) if at == lane and v.uses)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_height_grows_with_the_rows_and_width_with_the_lanes() -> None:
    small, large = (diagram_of(bh.trace(Dense(n), torch.randn(2, 3))) for n in (4, 16))
    heights = [layout_of(d, lanes_of(d)).height / len(d.rows) for d in (small, large)]
    assert heights[1] <= heights[0] * 1.05
    assert lanes_of(large).count <= 18


def test_the_svg_is_whole_and_needs_nothing_else() -> None:
    program = residual()
    text = to_svg(program)
    root = ET.fromstring(text)
    assert len(root.findall(f".//{SVG}g")) == 8
    assert len(root.findall(f".//{SVG}path")) == 7
    assert re.findall(r"(?:https?:)?//[a-z]", text.replace("http://www.w3.org/2000/svg", "")) == []
    assert "<script" not in text
    assert text == to_svg(program)


def test_axes_have_colours_and_frozen_ones_are_grey_with_the_reason() -> None:
    program = residual()
    colours = colours_of(program)
    assert colours["a.out"] != colours["stem.out"]
    assert {name for name, colour in colours.items() if colour == FROZEN} == {"stem.in", "head.out"}
    assert f'stroke="{colours["a.out"]}"' in to_svg(program)
    assert "head.out is frozen: an output of the program (aten.linear.default, node linear" in to_svg(program)


def test_the_html_lists_the_axes_and_marks_where_they_run() -> None:
    program = residual()
    page = to_html(program)
    mark = next(f"a{i}" for i, axis in enumerate(program.axes) if axis.name == "stem.out")
    assert f'data-mark="{mark}" data-name="stem.out"' in page
    assert len(re.findall(rf'class="line {mark}[" ]', page)) == 4  # stem, b, add, mean
    assert "<script src" not in page
    assert "<link" not in page


def test_files_by_suffix(tmp_path: Path) -> None:
    program = residual()
    draw(program, tmp_path / "a.svg")
    draw(program, tmp_path / "a.html")
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    with pytest.raises(OptionError, match=r"ends in \.svg or \.html"):
        draw(program, tmp_path / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.svg"]
