"""Where the lines run: every value has a lane from the row that makes it to the last one that reads it."""

from dataclasses import dataclass

from .diagram import Diagram


@dataclass(frozen=True, slots=True)
class Lanes:
    """Lane numbers from the right, counted from 0: of each value, and of each row's own dot; count: lanes in all."""

    values: tuple[int, ...]
    rows: tuple[int, ...]
    count: int


def lanes_of(diagram: Diagram) -> Lanes:
    """The lowest lane that is free, except that a row's first result goes on in the lane of an argument that ends there."""
    values = [0] * len(diagram.values)
    taken: set[int] = set()
    dots: list[int] = []
    for i, row in enumerate(diagram.rows):
        ending = [values[v] for v in row.inputs if diagram.values[v].uses[-1] == i]
        taken.difference_update(ending)
        dot = min(ending, default=_lowest(taken))
        for k, v in enumerate(row.outputs):
            lane = dot if k == 0 else _lowest(taken)
            values[v] = lane
            taken.add(lane)
        taken.difference_update(values[v] for v in row.outputs if not diagram.values[v].uses)
        dots.append(dot)
    return Lanes(tuple(values), tuple(dots), max([*values, *dots], default=0) + 1)


def _lowest(taken: set[int]) -> int:
    lane = 0
    while lane in taken:
        lane += 1
    return lane
