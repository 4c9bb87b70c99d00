"""Coordinates in pixels: rows from top to bottom, lanes from the labels to the left, lines with round corners."""

from collections.abc import Iterable
from dataclasses import dataclass

from .diagram import Diagram, Value
from .lanes import Lanes

ROW, LANE, HEAD, MARGIN, CORNER = 30, 13, 34, 24, 9


@dataclass(frozen=True, slots=True)
class Layout:
    """rows: y of each row's middle; heads: (y, name) of each section; left: x where the labels begin; height: of the whole."""

    rows: tuple[int, ...]
    heads: tuple[tuple[int, str], ...]
    left: int
    height: int
    lanes: Lanes

    def x(self, lane: int) -> int:
        return self.left - 22 - LANE * lane

    def dot(self, row: int) -> tuple[int, int]:
        return self.x(self.lanes.rows[row]), self.rows[row]


def layout_of(diagram: Diagram, lanes: Lanes) -> Layout:
    """Place the rows, with a heading where a section begins."""
    y, section = MARGIN, ""
    rows: list[int] = []
    heads: list[tuple[int, str]] = []
    for row in diagram.rows:
        if row.section != section:
            section = row.section
            heads.append((y + HEAD // 2 + 4, section))
            y += HEAD
        rows.append(y + ROW // 2)
        y += ROW
    return Layout(tuple(rows), tuple(heads), MARGIN + 30 + LANE * lanes.count, y + MARGIN, lanes)


def line(layout: Layout, index: int, value: Value) -> str:
    """The SVG path of a value: from its row down its lane, and from there into every row that reads it."""
    lane = layout.x(layout.lanes.values[index])
    x, top = layout.dot(value.source)
    end = layout.rows[value.uses[-1]]
    straight = layout.dot(value.uses[-1])[0] == lane
    start = f"M{x} {top}" if x == lane else f"M{x} {top}H{_towards(lane, x)}Q{lane} {top} {lane} {top + CORNER}"
    return start + f"V{end if straight else end - CORNER}" + "".join(_turns(layout, lane, value.uses))


def _turns(layout: Layout, lane: int, uses: Iterable[int]) -> Iterable[str]:
    for row in uses:
        x, y = layout.dot(row)
        if x != lane:
            yield f"M{lane} {y - CORNER}Q{lane} {y} {_towards(lane, x)} {y}H{x}"


def _towards(corner: int, other: int) -> int:
    """The x one corner's radius before `corner`, on the side of `other`."""
    return corner + (CORNER if other > corner else -CORNER)
